//! Transcripts of a purger: inputs in, effects compared; stories from systems in which the deleted came
//! back; and the promise by property, with a small fleet on a bad network.

mod acts;
mod bench;
mod desk;
mod fleet;
mod judge;
mod law;
mod stories;
mod transcripts;
