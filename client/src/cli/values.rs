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

/// The units of a time, and each in seconds. `ms` comes before what it ends in.
const UNITS: [(&str, f64); 5] = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)];

/// Reads a time such as `2s`, `500ms`, `1.5m` or plain seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let with_unit = |(unit, seconds): &(&str, f64)| Some((text.strip_suffix(unit)?, *seconds));
    let (number, unit) = UNITS.iter().find_map(with_unit).unwrap_or((text, 1.0));
    number
        .parse::<f64>()
        .ok()
        .filter(|_| number.starts_with(|first: char| first.is_ascii_digit()))
        .and_then(|number| Duration::try_from_secs_f64(number * unit).ok())
        .filter(|duration| *duration <= Duration::from_hours(24))
        .ok_or_else(|| "a time is written as 500ms, 2s, 5m, 1h or plain seconds, up to a day".to_owned())
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
        // As `--older-than` takes it.
        assert_eq!(duration("1m"), Ok(Duration::from_mins(1)));
        assert_eq!(duration("24h"), Ok(Duration::from_hours(24)));
        assert_eq!(duration("1d"), Ok(Duration::from_hours(24)));
        for bad in ["", "s", "ms", "-1", "m", "25h", "1w", "inf", "NaN", "1e99", "2 s", "+1"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
