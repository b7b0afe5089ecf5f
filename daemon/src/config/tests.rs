use clap::Parser;

use super::*;
use crate::cli::Cli;

/// The configuration from a command line, an environment (with `HOME=/h`) and the text of a file.
fn load(flags: &[&str], environment: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("wtd")).unwrap();
    std::fs::write(directory.path().join("wtd/config.toml"), file).unwrap();
    let cli = Cli::try_parse_from(std::iter::once(&"wtd").chain(flags)).unwrap();
    Config::load(&cli.flags, Path::new("/w"), |name| {
        let given = environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        given.or_else(|| match name {
            "HOME" => Some("/h".into()),
            "XDG_CONFIG_HOME" => Some(directory.path().into()),
            _ => None,
        })
    })
}

/// The one line that a file is refused with, from its line number on.
fn complaint(file: &str) -> String {
    let error = load(&[], &[], file).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error.split_once("config.toml:").unwrap().1.to_owned()
}

#[test]
fn the_command_line_is_well_formed() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn nothing_said_gives_the_built_in_values() {
    let cli = Cli::try_parse_from(["wtd"]).unwrap();
    let config =
        Config::load(&cli.flags, Path::new("/w"), |name| (name == "HOME").then(|| "/nonexistent".into()))
            .unwrap();
    assert_eq!(
        config,
        Config {
            file: None,
            state_dir: "/nonexistent/.local/state/wtd".into(),
            socket: None,
            roots: vec![],
            reserved_ports: PortRanges::default(),
            probe: true,
            engine: Engine::Detect,
            resync: Duration::from_mins(5),
            log: "info".into(),
            step: NonZeroU16::new(10_000).unwrap(),
            avoid_ephemeral: false,
            listen: None,
        }
    );
}

#[test]
fn a_file_can_say_everything() {
    let config = load(
        &[],
        &[],
        r#"
roots = ["~/src", "/srv/git"]
reserved_ports = [8080, "9000-9010"]
probe = false
engine = "none"
resync = "1m 30s"
log = "warn,wtd=debug"
step = 100
avoid_ephemeral = true
listen = "127.0.0.1:7878"
"#,
    )
    .unwrap();
    assert!(config.file.is_some());
    assert_eq!(config.roots, [Path::new("/h/src"), Path::new("/srv/git")]);
    assert_eq!(config.reserved_ports.to_string(), "8080,9000-9010");
    assert!(!config.probe && config.avoid_ephemeral);
    assert_eq!(config.engine, Engine::None);
    assert_eq!(config.resync, Duration::from_secs(90));
    assert_eq!(config.log, "warn,wtd=debug");
    assert_eq!(config.step.get(), 100);
    assert_eq!(config.listen, Some("127.0.0.1:7878".parse().unwrap()));
}

#[test]
fn flags_go_before_variables_and_variables_before_the_file() {
    let file = "step = 1000\nresync = \"1m\"\nengine = \"none\"\nprobe = true";
    let environment = [
        ("WTD_STEP", "2000"),
        ("WTD_RESYNC", "2m"),
        ("WTD_PROBE", "off"),
        ("WTD_STATE_DIR", "/e"),
        ("WTD_LOG", ""),
    ];
    let flags = ["--step", "3000", "--probe", "--state-dir", "/f", "--socket", "/s/wtd.sock"];
    let config = load(&flags, &environment, file).unwrap();
    assert_eq!(config.step.get(), 3000);
    assert_eq!(config.resync, Duration::from_mins(2));
    assert_eq!(config.engine, Engine::None);
    assert_eq!(config.log, "info");
    assert!(config.probe);
    assert_eq!(config.state_dir, Path::new("/f"));
    assert_eq!(config.socket.as_deref(), Some(Path::new("/s/wtd.sock")));

    let config = load(&[], &environment, file).unwrap();
    assert_eq!(config.step.get(), 2000);
    assert!(!config.probe);
    assert_eq!(config.state_dir, Path::new("/e"));
}

#[test]
fn every_key_is_a_variable_and_a_flag_too() {
    let settings = |config: Config| Config { file: None, ..config };
    let environment = [
        ("WTD_ROOTS", "/a:~/b::"),
        ("WTD_RESERVED_PORTS", "1,5-7"),
        ("WTD_PROBE", "0"),
        ("WTD_ENGINE", "/run/podman.sock"),
        ("WTD_RESYNC", "PT10S"),
        ("WTD_LOG", "debug"),
        ("WTD_STEP", "10"),
        ("WTD_AVOID_EPHEMERAL", "yes"),
        ("WTD_LISTEN", "localhost:80"),
    ];
    let flags = [
        "--roots=/a",
        "--roots=~/b",
        "--reserved-ports=1,5-7",
        "--probe=false",
        "--engine=unix:///run/podman.sock",
        "--resync=10s",
        "--log=debug",
        "--step=10",
        "--avoid-ephemeral",
        "--listen=127.0.0.1:80",
    ];
    let from_environment = settings(load(&[], &environment, "").unwrap());
    assert_eq!(from_environment, settings(load(&flags, &[], "").unwrap()));
    assert_eq!(from_environment.roots, [Path::new("/a"), Path::new("/h/b")]);
    assert_ne!(from_environment, settings(load(&[], &[], "").unwrap()));
}

#[test]
fn reserved_ports_can_be_given_at_once_or_one_after_the_other() {
    let once = load(&["--reserved-ports=8080,9000-9010"], &[], "").unwrap().reserved_ports;
    let flags = ["--reserved-ports", "8080", "--reserved-ports=9000-9010"];
    let repeated = load(&flags, &[], "reserved_ports = [1]").unwrap().reserved_ports;
    assert_eq!(repeated, once);
    assert_eq!(
        load(&["--reserved-ports="], &[], "reserved_ports = [1]").unwrap().reserved_ports.to_string(),
        ""
    );
}

#[test]
fn a_time_without_a_unit_is_seconds() {
    let expected = Duration::from_secs(90);
    for file in ["resync = 90", "resync = \"90\"", "resync = \"90s\"", "resync = \"1m 30s\""] {
        assert_eq!(load(&[], &[], file).unwrap().resync, expected, "{file}");
    }
    assert_eq!(load(&[], &[("WTD_RESYNC", "90")], "").unwrap().resync, expected);
    assert_eq!(load(&["--resync=90"], &[], "").unwrap().resync, expected);
}

#[test]
fn a_flag_that_is_on_or_off_takes_its_value_as_every_other() {
    for (flags, expected) in [
        (&["--probe"][..], true),
        (&["--probe=false"], false),
        (&["--probe", "false"], false),
        (&["--probe", "true"], true),
        (&["--probe", "off", "--step", "10"], false),
        (&["--probe", "--step", "10"], true),
    ] {
        assert_eq!(load(flags, &[], "").unwrap().probe, expected, "{flags:?}");
    }
    assert!(load(&["--avoid-ephemeral", "true"], &[], "").unwrap().avoid_ephemeral);
    assert!(Cli::try_parse_from(["wtd", "--probe", "perhaps"]).is_err());
}

#[test]
fn a_bad_file_is_refused_in_one_line_that_says_where() {
    for (file, expected) in [
        ("step = 5\nstep = 6", "2: "),
        ("# x\nport = 1", "2: unknown field `port`"),
        ("\n\nstep = 0", "3: \"0\" is not a step"),
        ("step = 60001", "1: \"60001\" is not a step"),
        ("step = -1", "1: \"-1\" is not a step"),
        ("step = \"x\"", "1: invalid type"),
        ("probe = \"no\"", "1: invalid type"),
        ("roots = \"x\"", "1: invalid type"),
        ("roots = [\n\"src\"]", "1: src is not absolute"),
        ("reserved_ports = [70000]", "1: \"70000\" is neither a port"),
        ("reserved_ports = [\"9-8\"]", "1: \"9-8\" is neither a port"),
        ("reserved_ports = [true]", "1: expected a port"),
        ("engine = \"docker\"", "1: \"docker\" is not a Docker host"),
        ("resync = \"soon\"", "1: \"soon\" is not a length of time"),
        ("resync = \"10ms\"", "1: \"10ms\" is too short"),
        ("resync = \"-5m\"", "1: \"-5m\" is too short"),
        ("resync = 0", "1: \"0\" is too short"),
        ("resync = true", "1: expected a length of time"),
        ("log = \"[\"", "1: \"[\" is not a log filter"),
        ("log = \"warning\"", "1: \"warning\" is no level: write off, error, warn,"),
        ("log = \"wtd=debug,quiet\"", "1: \"quiet\" is no level"),
        ("listen = \"0.0.0.0:1\"", "1: \"0.0.0.0:1\" is not a loopback address"),
        ("listen = \"[::]:1\"", "1: \"[::]:1\" is not a loopback address"),
        ("listen = \"example.org:1\"", "1: \"example.org:1\" is not an address"),
        ("= 1", "1: "),
    ] {
        let complaint = complaint(file);
        assert!(complaint.starts_with(expected), "{file:?} gave {complaint:?}");
    }
    complaint(&format!("roots = {}", "[".repeat(10_000)));
}

#[test]
fn a_bad_variable_is_named() {
    let error = load(&[], &[("WTD_STEP", "many")], "").unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable WTD_STEP: \"many\" is not a step: write a number from 1 to 60000"
    );
}

#[test]
fn a_file_that_was_asked_for_has_to_be_there() {
    let error = load(&["--config", "/nonexistent/wtd.toml"], &[], "").unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
    assert!(load(&[], &[("WTD_CONFIG", "/nonexistent/wtd.toml")], "").is_err());
}

#[test]
fn without_a_home_there_is_no_tilde() {
    let cli = Cli::try_parse_from(["wtd", "--roots=~/src", "--state-dir=/s"]).unwrap();
    assert!(matches!(Config::load(&cli.flags, Path::new("/w"), |_| None), Err(ConfigError::NoHome(_))));
    let cli = Cli::try_parse_from(["wtd"]).unwrap();
    assert!(matches!(Config::load(&cli.flags, Path::new("/w"), |_| None), Err(ConfigError::NoStateDir)));
}

#[test]
fn a_relative_path_starts_from_where_the_daemon_was_started() {
    let cli = Cli::try_parse_from(["wtd", "--roots=src", "--state-dir=/s", "--socket=./here.sock"]).unwrap();
    let config =
        Config::load(&cli.flags, Path::new("/w"), |name| (name == "WTD_ROOTS").then(|| "x".into())).unwrap();
    assert_eq!(config.roots, [Path::new("/w/src")]);
    assert_eq!(config.socket.as_deref(), Some(Path::new("/w/here.sock")));
}
