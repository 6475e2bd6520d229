//! Reading `[endpoints.context]`.

use super::*;

#[test]
fn contexts_that_have_neither_a_round_nor_an_end_are_told_and_others_are_not() {
    let told = |context: &str| -> Vec<String> {
        let case = Case::file(&format!("{SMALL}[endpoints.context]\n{context}\n"));
        case.config();
        case.all_warnings().into_iter().filter(|warning| warning.contains(REPLAYABLE)).collect()
    };
    let keys = "keys = [ { secret = 'fake-fake-fake-fake-fake-fake-32' } ]";
    let jwt = |require: &str| format!("format = 'jwt'\n[endpoints.context.jwt]\n{require}\n{keys}");
    for (context, format) in [
        ("format = 'opaque'", "opaque"),
        ("format = 'json'\nfields = { task_id = '/t' }", "json"),
        ("format = 'pattern'\npattern = '(?P<task_id>.+)'", "pattern"),
        (&jwt("require = []"), "jwt"),
        (&jwt("require = ['operators']"), "jwt"),
        ("format = ['registry', 'opaque']", "opaque"),
    ] {
        let told = told(context);
        assert_eq!(told.len(), 1, "{context}: {told:#?}");
        has(&told, &format!("countersign.toml:6: endpoints[0].context.format: {format}: {REPLAYABLE}"));
    }
    has(
        &Case::file(SMALL).all_warnings(),
        "default: endpoints[0].context.format: opaque: contexts have neither",
    );
    for context in [
        "format = 'json'\nfields = { task_id = '/t', round = '/r' }",
        "format = 'pattern'\npattern = '(?P<task_id>.+)/(?P<round>.+)'",
        &jwt(""),
        &jwt("require = ['exp']"),
        &jwt("require = ['round']"),
        "format = 'registry'",
    ] {
        assert!(told(context).is_empty(), "{context}");
    }
}

#[test]
fn what_a_token_has_to_have_is_relaxed_by_name() {
    let with = |rest: &str| {
        let keys = "keys = [ { secret = 'fake-fake-fake-fake-fake-fake-32' } ]";
        Case::file(&format!(
            "{SMALL}[endpoints.context]\nformat = 'jwt'\n[endpoints.context.jwt]\n{rest}\n{keys}\n"
        ))
    };
    let demands = |rest: &str| match &with(rest).config().intake.endpoints[0].context.formats[0] {
        Format::Jwt(keys) => keys.demands().clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(demands(""), Demands::default());
    let strict = demands(
        "require = ['exp', 'actions']\naud = 'countersign'\niss = ['oa', 'erp']\ntyp = 'JWT'\nleeway = '5s'",
    );
    assert_eq!(strict.require, [Requirement::Exp, Requirement::Actions]);
    assert_eq!(
        (strict.aud, strict.iss),
        (vec!["countersign".to_owned()], vec!["oa".to_owned(), "erp".to_owned()])
    );
    assert_eq!((strict.typ.as_deref(), strict.leeway_seconds), (Some("JWT"), 5));
    assert_eq!(demands("require = []").require, []);
    let relaxed = with("require = ['round']").warnings();
    has(
        &relaxed,
        "countersign.toml:8: endpoints[0].context.jwt.require: does not ask for exp: a captured token",
    );
    has(
        &relaxed,
        "countersign.toml:8: endpoints[0].context.jwt.require: does not ask for operators: a captured token",
    );
    assert_eq!(
        relaxed.len(),
        2 + usize::from(relaxed.iter().any(|line| line.contains("on_unresolved"))),
        "{relaxed:#?}"
    );
    let faults = with("require = ['exp', 'jti', 'sub']\naud = []\niss = ''\ntyp = ''").faults();
    for expected in [
        "countersign.toml:8: endpoints[0].context.jwt.require[1]: \"jti\" is part of \"round\"",
        "countersign.toml:8: endpoints[0].context.jwt.require[2]: \"sub\" is not a claim that can be asked for",
        "countersign.toml:9: endpoints[0].context.jwt.aud: names nobody",
        "countersign.toml:10: endpoints[0].context.jwt.iss: names nobody",
        "countersign.toml:11: endpoints[0].context.jwt.typ: \"\" is empty",
    ] {
        has(&faults, expected);
    }
}
