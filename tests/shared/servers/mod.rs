//! The servers that other tests stand on are what these believe: who may enter, what a pause, an end and a restart do,
//! and that nothing is left.

mod left;
mod mariadb;
mod postgres;
mod redis;
