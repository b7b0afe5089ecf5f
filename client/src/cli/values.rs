//! How arguments of the command line are read.

use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::shell::{Hooked, Shell};

/// Reads the name of a shell.
pub(super) fn shell_parser() -> impl TypedValueParser<Value = Shell> {
    named(Shell::ALL.map(Shell::name)).try_map(|name| Shell::from_name(&name))
}

/// Reads the name of a shell that has a hook.
pub(super) fn hooked_parser() -> impl TypedValueParser<Value = Hooked> {
    named(Hooked::ALL.map(|hooked| hooked.shell().name())).try_map(|name| Hooked::from_name(&name))
}

/// Reads one of these names. csh and tcsh are read as well, to be refused with the reason: their quoting breaks on
/// newlines and on `!`, so no value could be printed safely.
fn named<const N: usize>(names: [&'static str; N]) -> PossibleValuesParser {
    let refused = ["tcsh", "csh"].map(|name| PossibleValue::new(name).hide(true));
    PossibleValuesParser::new(names.into_iter().map(PossibleValue::new).chain(refused))
}

/// Reads the name of a verb.
pub(super) fn verb_name(text: &str) -> Result<String, &'static str> {
    if super::is_verb(text) { Ok(text.to_owned()) } else { Err("there is no such command") }
}

/// Reads a time such as `2s`, `500ms`, `1.5s` or plain seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    number
        .parse::<f64>()
        .ok()
        .filter(|_| number.starts_with(|first: char| first.is_ascii_digit()))
        .and_then(|number| Duration::try_from_secs_f64(number * unit).ok())
        .filter(|duration| *duration <= Duration::from_hours(24))
        .ok_or_else(|| "a time is written as 2s, 500ms or plain seconds, up to a day".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "s", "ms", "-1", "1m", "inf", "NaN", "1e99", "2 s", "+1"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
