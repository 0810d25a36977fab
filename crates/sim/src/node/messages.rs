//! What arrives from other nodes, and which machine of this one each question is for.

use anello_antientropy::{Input as TreeInput, Question as TreeQuestion, Token as TreeToken};
use anello_gossip::Input as GossipInput;
use anello_protocol::{id::NodeId, key::DataKey, message::replica::Refusal};
use anello_replica::{
    coordinator::{Input as CoordinatorInput, Token as CoordinatorToken},
    hints::{self, Input as HintInput},
    replica::{Input as ReplicaInput, Reply, Request, Token as ReplicaToken},
};

use super::{Asker, Inner, Node, Out, vnodes::frame_of};
use crate::wire::{AnswerFrame, Ask, Frame};

impl Node {
    pub(super) fn packet(
        &mut self,
        from: NodeId,
        frame: Frame,
        out: &mut Vec<Out>,
    ) -> Option<Inner> {
        match frame {
            Frame::Gossip(packet) => Some(Inner::Gossip(GossipInput::Heard { from, packet })),
            Frame::Ack(ack) => Some(Inner::Coordinator(CoordinatorInput::Acked(ack))),
            Frame::Answer(call, answer) => self.call_ended(call, Ok(answer)),
            // Nobody waits for the answer.
            Frame::Ask(_, 0, _) => None,
            Frame::Ask(call, _, ask) => {
                let asker = Asker::Node(from.clone(), call);
                self.take_question(asker, from, ask, out)
            }
        }
    }

    /// Passes a question on to the machine that it is for.
    pub(super) fn take_question(
        &mut self,
        asker: Asker,
        from: NodeId,
        ask: Ask,
        out: &mut Vec<Out>,
    ) -> Option<Inner> {
        match ask {
            Ask::Relay(relay) => {
                let token = CoordinatorToken(self.note_asker(asker));
                Some(Inner::Coordinator(CoordinatorInput::Relay { token, relay }))
            }
            Ask::Forward(forward) => {
                let token = CoordinatorToken(self.note_asker(asker));
                Some(Inner::Coordinator(CoordinatorInput::Forward { token, forward }))
            }
            Ask::Read(read) => {
                let key = read.key.clone();
                self.ask_replica(&key, Request::Read(read), asker, out)
            }
            Ask::Store(store) => {
                let key = store.key.clone();
                self.ask_replica(&key, Request::Store(store), asker, out)
            }
            Ask::Purge(purge) => {
                let key = purge.key.clone();
                self.ask_replica(&key, Request::Purge(purge), asker, out)
            }
            Ask::Hint(hint) => self.ask_hints(hints::Request::Store(hint), asker),
            Ask::ReadHints(read) => self.ask_hints(hints::Request::Read(read), asker),
            Ask::Check(check) => self.ask_hints(hints::Request::Check(check), asker),
            Ask::Credit(credit) => self.ask_hints(hints::Request::Credit(from, credit), asker),
            Ask::Mark(mark) => {
                let answered = self.answer(asker, AnswerFrame::Marked, out);
                debug_assert!(answered.is_none(), "nobody marks what is its own");
                Some(Inner::Trees(TreeInput::MarkForRepair(mark.ranges)))
            }
            Ask::Roots(roots) => self.ask_trees(TreeQuestion::Roots(roots), from, asker),
            Ask::Ranges(ranges) => self.ask_trees(TreeQuestion::Ranges(ranges), from, asker),
            Ask::Keys(keys) => self.ask_trees(TreeQuestion::Keys(keys), from, asker),
        }
    }

    /// Passes a request on to the key's vnode. Where there is none, the node says that it isn't an owner.
    pub(super) fn ask_replica(
        &mut self,
        key: &DataKey,
        request: Request,
        asker: Asker,
        out: &mut Vec<Out>,
    ) -> Option<Inner> {
        let partition = key.hash.partition(self.config.partitions);
        if !self.running.as_ref()?.replicas.contains_key(&partition) {
            let refused = match request {
                Request::Read(_) => Reply::Read(Err(Refusal::NotOwner)),
                Request::Store(_) => Reply::Store(Err(Refusal::NotOwner)),
                Request::Mint(_) => Reply::Mint(Err(Refusal::NotOwner)),
                Request::Purge(_) => Reply::Purge(Err(Refusal::NotOwner)),
            };
            return self.answer(asker, frame_of(refused), out);
        }
        let token = ReplicaToken(self.note_asker(asker));
        Some(Inner::Replica(partition, ReplicaInput::Asked { token, request }))
    }

    pub(super) fn ask_hints(&mut self, request: hints::Request, asker: Asker) -> Option<Inner> {
        let token = hints::Token(self.note_asker(asker));
        Some(Inner::Hints(HintInput::Asked { token, request }))
    }

    fn ask_trees(&mut self, question: TreeQuestion, from: NodeId, asker: Asker) -> Option<Inner> {
        let token = TreeToken(self.note_asker(asker));
        Some(Inner::Trees(TreeInput::Asked { token, from: Some(from), question }))
    }
}
