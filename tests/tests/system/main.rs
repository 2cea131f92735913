//! The whole system from outside: the `anteroom` binary, the real OpenSSH client and
//! stock sshd nodes. One binary, so that cases which mostly wait run beside each other.
//!
//! Each case has a [`World`](anteroom_tests::World) of its own and starts from nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod admin;
mod again;
mod agent;
mod allowing;
mod attack;
mod authorities;
mod automation;
mod balancer;
mod bridge;
mod certificates;
mod check;
mod clients;
mod contest;
mod crash;
mod crash_rotation;
mod demands;
mod direct;
mod doctor;
mod door;
mod enrol;
mod enrol_machine;
mod expiry;
mod flow;
mod forward;
mod guides;
mod hold;
mod hostile_nodes;
mod injection;
mod injection_fields;
mod input;
mod kinds;
mod limits;
mod locks;
mod matrix;
mod node_agent;
mod node_commands;
mod node_sessions;
mod nodes;
mod odd_channels;
mod packets;
mod pauses;
mod people;
mod predicates;
mod renewal;
mod revoke;
mod rotation;
mod rules;
mod scope;
mod second_factor;
mod serve;
mod tunnel;
mod tunnel_net;
mod vitals;
