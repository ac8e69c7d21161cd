//! The resolver through the wire: clients and upstreams are sockets on loopback,
//! the gate is a recording one.

mod answers;
mod budget;
mod failure;
mod policy;
mod quick;
mod robustness;
mod transport;
mod upstream;
mod world;
