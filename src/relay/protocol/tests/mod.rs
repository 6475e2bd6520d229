//! The machine in a world of its own, explored in two ways.

mod checker;
mod steps;
mod walks;
mod words;
mod world;
