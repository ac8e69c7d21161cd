//! The resolver through the wire: clients and upstreams are sockets on loopback,
//! the gate is a recording one.

mod answers;
mod budget;
mod choice;
mod failure;
mod local;
mod policy;
mod quick;
mod robustness;
mod secure;
mod transport;
mod upstream;
mod world;
