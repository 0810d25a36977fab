//! What lies between the fleet's machines: calls and their answers, vnodes and their disks, coordinators and
//! those who wait for them.

use super::*;

impl Fleet {
    pub(super) fn call(&mut self, to: usize, asker: Asker, message: Outgoing) {
        let token = self.sequence + (1 << 32);
        self.sequence += 1;
        let vnode = |request| replica::Input::Asked { token: replica::Token(token), request };
        match message {
            Outgoing::Read(read) => {
                self.nodes[to].at_vnode.insert(token, asker);
                self.vnode(to, vnode(replica::Request::Read(read)));
            }
            Outgoing::Store(store) => {
                self.nodes[to].at_vnode.insert(token, asker);
                self.vnode(to, vnode(replica::Request::Store(store)));
            }
            Outgoing::Mint(mint) => {
                self.nodes[to].at_vnode.insert(token, asker);
                self.vnode(to, vnode(replica::Request::Mint(mint)));
            }
            // Nobody keeps hints here.
            Outgoing::Hint(_) | Outgoing::ReadHints(_) | Outgoing::MintHint(_) => {
                self.answer(to, asker, Err(CallFailure::Unreachable));
            }
            Outgoing::Relay(relay) => {
                self.nodes[to].at_coordinator.insert(token, asker);
                self.coordinator(to, Input::Relay { token: Token(token), relay });
            }
            Outgoing::Forward(forward) => {
                self.nodes[to].at_coordinator.insert(token, asker);
                self.coordinator(to, Input::Forward { token: Token(token), forward });
            }
        }
    }

    pub(super) fn vnode(&mut self, at: usize, input: replica::Input) {
        let now = self.now(at);
        self.nodes[at].replica.handle(now, input);
        while let Some(effect) = self.nodes[at].replica.next_effect() {
            match effect {
                replica::Effect::Load(key) => {
                    let found = self.nodes[at].disk.clone();
                    self.nodes[at].replica.handle(now, replica::Input::Loaded(key, Ok(found)));
                }
                replica::Effect::Commit(number, commit) => {
                    let life = self.nodes[at].life;
                    self.nodes[at].commits.push((number, commit));
                    let in_us = 200 + self.draw(3_000);
                    self.at(in_us, Event::CommitEnds { at, life });
                }
                replica::Effect::Reply(token, reply) => {
                    let asker = self.nodes[at].at_vnode.remove(&token.0).expect("asked once");
                    let incoming = match reply {
                        replica::Reply::Read(result) => Incoming::Read(result),
                        replica::Reply::Store(result) => Incoming::Stored(result),
                        replica::Reply::Mint(result) => Incoming::Minted(result),
                        replica::Reply::Purge(_) => panic!("nobody purges"),
                    };
                    self.answer(at, asker, Ok(incoming));
                }
                replica::Effect::Quiet => panic!("nobody froze it"),
            }
        }
    }

    pub(super) fn coordinator(&mut self, at: usize, input: Input) {
        let now = self.now(at);
        self.nodes[at].coordinator.handle(now, input);
        while let Some(effect) = self.nodes[at].coordinator.next_effect() {
            match effect {
                Effect::Send { call, to, message, deadline, .. } => {
                    self.send(at, call, &to, message, deadline);
                }
                Effect::Ack { to, ack } => {
                    let to = self.place(&to);
                    let in_us = self.delay();
                    if !self.one_in(20) {
                        self.at(in_us, Event::Ack { to, ack });
                    }
                }
                Effect::Reply(token, reply) => {
                    let asker = self.nodes[at].at_coordinator.remove(&token.0).expect("asked once");
                    match reply {
                        Reply::Relay(result) => {
                            self.answer(at, asker, Ok(Incoming::Stored(result)))
                        }
                        Reply::Forward(result) => {
                            self.answer(at, asker, Ok(Incoming::Forwarded(result)));
                        }
                        Reply::Get(answer) => {
                            let Asker::Client(number) = asker else { panic!("a client's") };
                            let result = answer.result.map(|found| {
                                self.contexts.push(found.context.clone());
                                let context = token_decode(&data_key(), &found.context.0);
                                context.expect("our own")
                            });
                            self.done(number, result);
                        }
                        Reply::Write(answer) => {
                            let Asker::Client(number) = asker else { panic!("a client's") };
                            let result = answer.result.map(|written| {
                                token_decode(&data_key(), &written.context.0).expect("our own")
                            });
                            self.done(number, result);
                        }
                    }
                }
            }
        }
        if let Some(wake) = self.nodes[at].coordinator.next_wake() {
            let life = self.nodes[at].life;
            self.at(wake.0.saturating_sub(self.now_us), Event::Wake { at, life });
        }
    }

    pub(super) fn done(&mut self, number: usize, result: Result<Context, RequestError>) {
        let now = self.now_us;
        let operation = &mut self.operations[number];
        assert!(operation.answered.is_none(), "answered twice");
        operation.answered = Some((now, result));
    }

    /// Sends a message over the network, which has its ways. Its sender hears of it exactly once.
    pub(super) fn send(
        &mut self,
        at: usize,
        call: CallNumber,
        to: &NodeId,
        message: Outgoing,
        deadline: Moment,
    ) {
        let to = self.place(to);
        let life = self.nodes[at].life;
        let asker = Asker::Coordinator { at, life, call };
        if to == at {
            return self.at(1, Event::Call { to, asker, message });
        }
        let in_us = self.delay();
        if self.one_in(12) {
            let (in_us, failure) = match self.draw(2) {
                0 => (in_us, CallFailure::Unreachable),
                _ => (deadline.0.saturating_sub(self.now_us), CallFailure::Timeout),
            };
            let outcome = Err(failure);
            return self.at(in_us, Event::Answer { at, life, call, from: to, outcome });
        }
        if self.one_in(15) {
            let late = self.delay();
            let nobody = Asker::Coordinator { at, life: u64::MAX, call };
            self.at(in_us + late, Event::Call { to, asker: nobody, message: message.clone() });
        }
        self.at(in_us, Event::Call { to, asker, message });
    }

    pub(super) fn answer(
        &mut self,
        from: usize,
        asker: Asker,
        outcome: Result<Incoming, CallFailure>,
    ) {
        let (at, life, call) = match asker {
            Asker::Coordinator { at, life, call } => (at, life, call),
            Asker::Handover(number) => return self.handed_over(number, &outcome),
            Asker::Client(_) => return,
        };
        if at == from {
            return self.at(1, Event::Answer { at, life, call, from, outcome });
        }
        let in_us = self.delay();
        let outcome = if self.one_in(20) { Err(CallFailure::Closed) } else { outcome };
        self.at(in_us, Event::Answer { at, life, call, from, outcome });
    }
}
