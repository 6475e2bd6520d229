//! A schema version that this program does not know.

use super::*;

#[test]
fn a_program_that_does_not_know_a_version_says_which_it_knows_and_touches_nothing() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let path = scratch.path();
    let words = |found, known| {
        format!(
            "the ledger {} has schema version {found}; this program knows versions up to {known}. Run the newer program",
            path.display()
        )
    };
    assert_eq!(schema::admit(&path, 2, 1).unwrap_err().to_string(), words(2, 1));
    assert!(schema::admit(&path, 1, 1).is_ok() && schema::admit(&path, 1, 2).is_ok());
    scratch.execute(&format!("PRAGMA user_version = {}", schema::MIGRATIONS.len() + 1));
    let before = fs::read(&path).unwrap();
    let known = schema::MIGRATIONS.len();
    assert_eq!(
        SqliteLedger::open(&scratch.path(), &Scratch::sizing()).unwrap_err().to_string(),
        words(known + 1, known)
    );
    assert_eq!(Reader::open(&path).unwrap_err().to_string(), words(known + 1, known));
    assert_eq!(fs::read(&path).unwrap(), before);
}
