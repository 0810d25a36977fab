//! The network of a fleet: a namespace a node, each on a link of its own to a router, which is the
//! scenario's own namespace. The router cuts what it is told to cut, in one direction or in both, and can
//! make datacenters lie far apart.
//!
//! A cut is silent, as a broken line is: the packets go, and nobody is told. The scenario itself reaches
//! every node at any time.

use std::{net::Ipv4Addr, process::Command};

use super::{distance::Distance, fleet::Place};

/// Rules for cuts come before the one that leads packets through [`Distance`].
const CUT: &str = "100";
const DETOUR: &str = "200";

/// The links of a fleet.
pub struct Network {
    places: Vec<Place>,
    distance: Option<Distance>,
}

impl Network {
    /// Lays a link to every place.
    pub fn new(places: &[Place]) -> Self {
        run("mount -t tmpfs tmpfs /run && ip link set lo up");
        run("echo 1 > /proc/sys/net/ipv4/ip_forward");
        for place in places {
            let (id, address) = (place.id, address(place));
            let gateway = Ipv4Addr::from(u32::from(address) - 1);
            run(&format!(
                "ip netns add {id} && ip link add {id} type veth peer name eth0 netns {id} \
                 && ip addr add {gateway}/24 dev {id} && ip link set {id} up"
            ));
            let inside = format!("nsenter --net=/run/netns/{id} ip");
            run(&format!(
                "{inside} addr add {address}/24 dev eth0 && {inside} link set eth0 up \
                 && {inside} link set lo up && {inside} route add default via {gateway}"
            ));
        }
        Self { places: places.to_vec(), distance: None }
    }

    /// From here on what is sent from one of the first to one of the second is lost.
    pub fn cut_one_way(&self, from: &[&str], to: &[&str]) {
        for (from, to) in self.pairs(from, to) {
            run(&format!("ip rule add pref {CUT} from {from} to {to} blackhole"));
        }
    }

    /// From here on the two sides don't reach each other.
    pub fn cut(&self, left: &[&str], right: &[&str]) {
        self.cut_one_way(left, right);
        self.cut_one_way(right, left);
    }

    /// Mends all that is cut.
    pub fn heal(&self) {
        run(&format!("while ip rule del pref {CUT} 2>/dev/null; do :; done"));
    }

    /// From here on, for as long as the network lives, what nodes of different datacenters send each
    /// other takes so long, each way.
    pub fn part_datacenters(&mut self, one_way: std::time::Duration) {
        // Packets from one node to another abroad end here instead of being passed on, at sockets that
        // have the other's address.
        run("ip route add local 0.0.0.0/0 dev lo table 1");
        for (from, to) in self.pairs(&self.ids("eu"), &self.ids("us")) {
            for (from, to) in [(from, to), (to, from)] {
                run(&format!(
                    "ip rule add pref {DETOUR} iif {} from {from} to {to} lookup 1",
                    self.places.iter().find(|place| address(place) == from).expect("ours").id
                ));
            }
        }
        let addresses: Vec<_> = self.places.iter().map(address).collect();
        self.distance = Some(Distance::new(&addresses, one_way));
    }

    fn ids(&self, datacenter: &str) -> Vec<&'static str> {
        let there = self.places.iter().filter(|place| place.datacenter == datacenter);
        there.map(|place| place.id).collect()
    }

    fn pairs(&self, left: &[&str], right: &[&str]) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let of = |ids: &[&str]| -> Vec<_> {
            let places = self.places.iter().filter(|place| ids.contains(&place.id));
            places.map(address).collect()
        };
        let right = of(right);
        of(left).iter().flat_map(|from| right.iter().map(move |to| (*from, *to))).collect()
    }
}

/// A node's address: 10.datacenter.rack.2.
pub fn address(place: &Place) -> Ipv4Addr {
    let datacenter = if place.datacenter == "eu" { 1 } else { 2 };
    Ipv4Addr::new(10, datacenter, place.rack.as_bytes()[0], 2)
}

/// What a program is started by to run at a place.
pub fn enter(place: &Place) -> Vec<String> {
    vec!["nsenter".into(), format!("--net=/run/netns/{}", place.id)]
}

#[track_caller]
fn run(script: &str) {
    let output = Command::new("sh").args(["-c", script]).output().expect("sh is there");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}
