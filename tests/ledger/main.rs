//! The ledger on a real disk, through the doors that the rest of the program uses.

mod model;
