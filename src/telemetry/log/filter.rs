//! Valid filters that do not do what is meant. `Targets` takes every word that is not a level for a crate's name,
//! and then logs everything of that crate and nothing else.

/// The levels, and their names in other programs.
const WORDS: [(&str, &str); 22] = [
    ("error", "error"),
    ("warn", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("trace", "trace"),
    ("off", "off"),
    ("warning", "warn"),
    ("warnings", "warn"),
    ("err", "error"),
    ("errors", "error"),
    ("critical", "error"),
    ("fatal", "error"),
    ("crit", "error"),
    ("emerg", "error"),
    ("alert", "error"),
    ("notice", "info"),
    ("information", "info"),
    ("normal", "info"),
    ("verbose", "debug"),
    ("all", "trace"),
    ("none", "off"),
    ("silent", "off"),
];

const OURS: &str = "countersign";

/// The filter without blanks around names and without empty directives: `Targets` takes a blank for a part of a name, and
/// nothing for "errors only".
pub(super) fn tidied(filter: &str) -> String {
    let trimmed = |directive: &str| directive.split('=').map(str::trim).collect::<Vec<_>>().join("=");
    filter.split(',').map(trimmed).filter(|directive| !directive.is_empty()).collect::<Vec<_>>().join(",")
}

/// The probable mistake in a tidied filter that `Targets` accepts, as the end of a sentence.
pub(super) fn slip(filter: &str) -> Option<String> {
    let directives = || filter.split(',');
    for directive in directives() {
        if directive.contains(['[', '{']) {
            return Some(format!(
                "has {directive:?}; only targets and levels can be named, as in \"info,lapin=debug\""
            ));
        }
        if directive.contains(char::is_whitespace) {
            return Some(format!("has a blank in {directive:?}; commas separate directives"));
        }
        let (target, level) = match directive.split_once('=') {
            None => (directive, None),
            Some((target, level)) => (target, Some(level)),
        };
        if let Some(meant) = level.and_then(misspelt) {
            return Some(format!("has the level {:?}; did you mean {meant:?}?", level.unwrap_or_default()));
        }
        if level.is_none() && !is_level(target) && !is_ours(target) {
            return Some(match misspelt(target) {
                Some(meant) => format!("has the level {target:?}; did you mean {meant:?}?"),
                None => format!(
                    "has {target:?}, which is no level (error, warn, info, debug, trace, off); a target is written with one, \
                     as in \"info,{target}=debug\""
                ),
            });
        }
    }
    let heard =
        |directive: &str| is_level(directive) || is_ours(directive.split('=').next().unwrap_or_default());
    (!directives().any(heard))
        .then(|| format!("hides everything of countersign; begin it with a level, as in \"info,{filter}\""))
}

fn is_level(word: &str) -> bool {
    WORDS[..6].iter().any(|(level, _)| word.eq_ignore_ascii_case(level))
        || matches!(word, "0" | "1" | "2" | "3" | "4" | "5")
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The level that a word was probably meant to be; `None` if it is a level.
fn misspelt(word: &str) -> Option<&'static str> {
    if is_level(word) {
        return None;
    }
    let word = word.to_ascii_lowercase();
    WORDS.iter().find(|(known, _)| *known == word).map(|(_, level)| *level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_of_another_program_is_told_with_ours() {
        for (filter, words) in [
            ("warning", "has the level \"warning\"; did you mean \"warn\"?"),
            ("WARNING", "has the level \"WARNING\"; did you mean \"warn\"?"),
            ("info, countersign::relay=verbose", "has the level \"verbose\"; did you mean \"debug\"?"),
            ("verbose,lapin=debug", "has the level \"verbose\"; did you mean \"debug\"?"),
            ("info,lapin", "has \"lapin\", which is no level"),
            (
                "lapin=debug",
                "hides everything of countersign; begin it with a level, as in \"info,lapin=debug\"",
            ),
            ("countersigned=debug", "hides everything of countersign"),
            (
                "info countersign=debug",
                "has a blank in \"info countersign=debug\"; commas separate directives",
            ),
            ("in fo", "has a blank in \"in fo\""),
            ("info,lapin[{x=1,y}]=trace", "has \"lapin[{x=1\"; only targets and levels can be named"),
        ] {
            let told = slip(&tidied(filter)).unwrap();
            assert!(told.starts_with(words), "{filter}: {told}");
        }
    }

    #[test]
    fn what_is_meant_passes() {
        for filter in [
            "info",
            "WARN",
            "off",
            "3",
            "info,countersign::relay=debug",
            "countersign",
            "countersign::relay",
            "countersign=debug,lapin=off",
            "info,",
        ] {
            assert_eq!(slip(&tidied(filter)), None, "{filter}");
        }
    }
}
