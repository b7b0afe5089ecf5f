use std::collections::BTreeMap;
use std::ffi::OsString;

use proptest::prelude::*;

use super::*;

type Variables = BTreeMap<String, OsString>;

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect()
}

/// A shell with the hook, and maybe with direnv.
#[derive(Debug, Clone, Default)]
struct Shell {
    environment: Variables,
    state: Option<State>,
    /// What `env` has set for the worktree that is left next.
    given: Variables,
    seen: Option<(usize, usize)>,
    /// How often direnv has loaded or unloaded something.
    loads: usize,
    loaded: Option<(usize, BTreeMap<String, Option<OsString>>)>,
}

impl Shell {
    fn with(environment: &[(&str, &str)]) -> Self {
        Self { environment: variables(environment), ..Self::default() }
    }

    fn assign(&mut self, name: &str, value: Option<OsString>) {
        match value {
            Some(value) => drop(self.environment.insert(name.to_owned(), value)),
            None => drop(self.environment.remove(name)),
        }
    }

    /// One run of the hook; the memory takes its way through the environment.
    fn hook(&mut self, wanted: &Variables, is_set_by_env: bool) -> BTreeMap<String, Change> {
        let environment = self.environment.clone();
        let before = Before {
            state: self.state.take(),
            direnv: self.loaded.iter().flat_map(|(_, before)| before.keys().cloned()).collect(),
            is_set_by_env,
            given: std::mem::take(&mut self.given),
            value: &|name| environment.get(name).cloned(),
        };
        let (state, changes) = follow(&before, wanted, 1);
        for (name, change) in &changes {
            match change {
                Change::Take(value) | Change::Set(value) | Change::Restore(value) => {
                    self.assign(name, Some(value.clone()));
                }
                Change::Clear => self.assign(name, None),
            }
        }
        self.state = State::parse(&state.to_value().unwrap());
        assert_eq!(self.state.as_ref(), Some(&state));
        changes
    }

    fn go(&mut self, wanted: &[(&str, &str)]) -> BTreeMap<String, Change> {
        self.hook(&variables(wanted), false)
    }

    /// What direnv does at a prompt: it takes back what it changed when the `.envrc` is another one, and remembers what
    /// it changes now.
    fn direnv(&mut self, envrc: Option<(usize, &Variables)>) {
        if self.loaded.as_ref().map(|(number, _)| *number) == envrc.map(|(number, _)| number) {
            return;
        }
        self.loads += 1;
        for (name, value) in self.loaded.take().map(|(_, before)| before).unwrap_or_default() {
            self.assign(&name, value);
        }
        if let Some((number, sets)) = envrc {
            let mut before = BTreeMap::new();
            for (name, value) in sets {
                if self.environment.get(name) != Some(value) {
                    before.insert(name.clone(), self.environment.get(name).cloned());
                    self.assign(name, Some(value.clone()));
                }
            }
            self.loaded = Some((number, before));
        }
    }
}

#[test]
fn leaving_brings_back_what_was_before() {
    let mut shell = Shell::with(&[("DB_VOLUME", "mine"), ("UI_PORT", ""), ("OTHER", "x")]);
    let outside = shell.environment.clone();
    shell.go(&[("DB_VOLUME", "a"), ("PORT_OFFSET", "0"), ("UI_PORT", "3000")]);
    assert_eq!(shell.environment["DB_VOLUME"], "a");
    shell.go(&[("DB_VOLUME", "b"), ("PORT_OFFSET", "10000")]);
    assert_eq!(
        (shell.environment["DB_VOLUME"].to_str(), shell.environment["UI_PORT"].to_str()),
        (Some("b"), Some(""))
    );
    shell.go(&[]);
    assert_eq!(shell.environment, outside);
    assert_eq!(shell.go(&[]), BTreeMap::new());
}

#[test]
fn what_is_not_in_the_environment_is_taken_so_that_the_shell_can_keep_its_own() {
    let mut shell = Shell::with(&[("B", "x")]);
    let changes = shell.go(&[("A", "1"), ("B", "1")]);
    assert_eq!(changes["A"], Change::Take("1".into()));
    assert_eq!(changes["B"], Change::Set("1".into()));
    assert_eq!(shell.go(&[("A", "2"), ("B", "1")]), [("A".to_owned(), Change::Set("2".into()))].into());
    let changes = shell.go(&[]);
    assert_eq!((&changes["A"], &changes["B"]), (&Change::Clear, &Change::Restore("x".into())));
}

#[test]
fn a_change_by_hand_stays_in_the_worktree_and_ends_with_it() {
    let mut shell = Shell::with(&[("A", "outside")]);
    shell.go(&[("A", "1"), ("B", "1")]);
    shell.assign("A", Some("by hand".into()));
    shell.assign("B", None);
    assert_eq!(shell.go(&[("A", "1"), ("B", "1")]), BTreeMap::new(), "the same worktree");
    shell.go(&[("A", "2"), ("B", "2")]);
    assert_eq!(shell.environment, variables(&[("A", "2"), ("B", "2")]));
    shell.assign("A", Some("by hand".into()));
    shell.go(&[]);
    assert_eq!(shell.environment, variables(&[("A", "outside")]));
}

#[test]
fn what_is_right_already_is_left_alone_ever_after() {
    let mut shell = Shell::with(&[("A", "1")]);
    assert_eq!(shell.go(&[("A", "1")]), BTreeMap::new());
    shell.go(&[]);
    assert_eq!(shell.environment, variables(&[("A", "1")]));
}

#[test]
fn what_was_right_already_is_so_again_when_the_worktree_is_left() {
    let mut shell = Shell::with(&[("A", "1")]);
    shell.go(&[("A", "1")]);
    shell.assign("A", Some("by hand".into()));
    shell.go(&[]);
    assert_eq!(shell.environment, variables(&[("A", "1")]));
}

#[test]
fn what_env_has_set_since_goes_with_the_worktree() {
    let mut shell = Shell::with(&[("MINE", "1")]);
    shell.go(&[("A", "1")]);
    for (name, value) in [("B", "2"), ("C", "3")] {
        shell.assign(name, Some(value.into()));
    }
    let all = variables(&[("A", "1"), ("B", "2")]);
    assert_eq!(shell.hook(&all, true), BTreeMap::new(), "a directory below");
    shell.given = variables(&[("A", "1"), ("B", "2"), ("C", "3")]);
    shell.go(&[("A", "9")]);
    assert_eq!(shell.environment, variables(&[("A", "9"), ("MINE", "1")]));
    shell.go(&[]);
    assert_eq!(shell.environment, variables(&[("MINE", "1")]));
}

#[test]
fn what_env_has_set_goes_with_the_worktree() {
    let mut shell = Shell::with(&[("A", "1")]);
    assert_eq!(shell.hook(&variables(&[("A", "1")]), true), BTreeMap::new());
    shell.go(&[]);
    assert_eq!(shell.environment, Variables::new());
}

#[test]
fn a_memory_that_the_hook_did_not_write_is_none() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    let of = |bytes: &[u8]| State::parse(format!("1:7:{}", STANDARD_NO_PAD.encode(bytes)).as_ref());
    assert_eq!(of(b"").map(|state| state.shell), Some(7));
    assert!(of(b"NPORT_OFFSET\0Bx\0S0\0").is_some());
    for bytes in [
        &b"NPATH\0B/evil\0S0\0"[..],
        b"NLD_PRELOAD\0",
        b"N\0",
        b"NA;id\0",
        b"NA=B\0",
        b"Bx\0",
        b"NA\0Sx",
        b"\0",
        b"NA\0Qx\0",
        b"NA\0\0",
    ] {
        assert_eq!(of(bytes), None, "{}", String::from_utf8_lossy(bytes));
    }
    for value in ["", "1", "1:", "1:7", "2:7:", "1:x:", "1:7:%", "1:7::", "1:-7:", "1:7:$(id)"] {
        assert_eq!(State::parse(value.as_ref()), None, "{value}");
    }
}

#[test]
fn a_memory_that_no_environment_could_hold_is_an_error() {
    let mut shell = Shell::with(&[]);
    shell.go(&[("A", "1")]);
    let mut state = shell.state.unwrap();
    state.memories.insert("B".into(), Memory::new(Some("x".repeat(100_000).into()), "1".into()));
    assert!(state.to_value().unwrap_err().to_string().contains("A, B"));
}

const NAMES: [&str; 3] = ["A", "B", "C"];

/// A directory: in which worktree, and below which `.envrc`.
#[derive(Debug, Clone, Copy)]
struct Place {
    worktree: Option<usize>,
    envrc: Option<usize>,
}

fn places() -> impl Strategy<Value = Vec<Place>> {
    let place = (prop::option::of(0..3_usize), prop::option::of(0..4_usize));
    prop::collection::vec(place.prop_map(|(worktree, envrc)| Place { worktree, envrc }), 1..12)
}

/// Some of the variables, each with a value that is told by who sets it; or with a value that others set as well.
fn some(who: &'static str, most: usize) -> impl Strategy<Value = Vec<Variables>> {
    let value = prop::option::of(prop::option::of(Just(())));
    let one = prop::collection::vec(value, NAMES.len());
    prop::collection::vec(one, most).prop_map(move |all| {
        let variables = |(number, one): (usize, Vec<Option<Option<()>>>)| {
            let named = NAMES.iter().zip(one).filter_map(|(name, value)| Some((name, value?)));
            named
                .map(|(name, own)| {
                    let value = if own.is_some() { format!("{who}{number}") } else { "worktree0".to_owned() };
                    ((*name).to_owned(), OsString::from(value))
                })
                .collect()
        };
        all.into_iter().enumerate().map(variables).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn beside_direnv_nothing_stays_behind_whoever_comes_first(
        places in places(),
        worktrees in some("worktree", 3),
        envrcs in some("envrc", 4),
        outside in some("outside", 1),
        direnv_is_first: bool,
        uses_direnv: bool,
    ) {
        let mut shell = Shell { environment: outside[0].clone(), ..Shell::default() };
        for (number, place) in places.iter().enumerate() {
            let envrc = place.envrc.filter(|_| uses_direnv);
            let nothing = Variables::new();
            let wanted = place.worktree.map_or(&nothing, |worktree| &worktrees[worktree]);
            // Some prompts, until everybody has seen what the other one did.
            for _ in 0..3 {
                for is_direnv in [direnv_is_first, !direnv_is_first] {
                    if is_direnv {
                        shell.direnv(envrc.map(|envrc| (envrc, &envrcs[envrc])));
                    } else if shell.seen != Some((number, shell.loads)) {
                        shell.seen = Some((number, shell.loads));
                        shell.hook(wanted, false);
                    }
                }
            }
            for name in NAMES {
                let is_direnvs = envrc.is_some_and(|envrc| envrcs[envrc].contains_key(name));
                let expected = wanted.get(name).or(outside[0].get(name));
                prop_assert!(
                    is_direnvs || shell.environment.get(name) == expected,
                    "{name} is {:?} instead of {expected:?} at place {number}: {shell:#?}",
                    shell.environment.get(name),
                );
            }
        }
    }
}
