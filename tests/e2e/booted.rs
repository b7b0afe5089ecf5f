//! As a person has it: `make install` as an ordinary user, on Debian that was booted with a systemd of its own.

use serde_json::Value;

use crate::harness::{User, engine, on_each_debian, on_each_debian_with, until};

/// A repository with two worktrees, at offsets 0 and 10000.
const SHOP: &str = "git init -q -b main ~/shop
    git -C ~/shop commit -q --allow-empty -m first
    git -C ~/shop worktree add -q ~/search
    wtd-client add ~/shop >&2";

/// The group that may use the engine, on this machine as on the one that is booted.
const ENGINE_GROUP: u32 = 4_242;

/// What `scripts/install` does, with what was built for these tests.
const INSTALL: &str = "WTD_DIST=/wtd/dist /wtd/scripts/install";

#[track_caller]
fn install(user: &User<'_>) {
    user.says(INSTALL);
}

/// A property of a unit (`systemctl show`).
#[track_caller]
fn property(user: &User<'_>, unit: &str, name: &str) -> String {
    user.says(&format!("systemctl --user show --property={name} --value {unit}"))
}

/// A further setting of the service, as `systemctl --user edit wtd` makes it.
#[track_caller]
fn drop_in(user: &User<'_>, section: &str, setting: &str) {
    user.says(&format!(
        "mkdir -p ~/.config/systemd/user/wtd.service.d
        printf '[%s]\\n%s\\n' '{section}' '{setting}' >>~/.config/systemd/user/wtd.service.d/test.conf
        systemctl --user daemon-reload"
    ));
}

#[track_caller]
fn offset(user: &User<'_>, path: &str) -> u16 {
    user.says(&format!("wtd-client get PORT_OFFSET --path {path}")).parse().unwrap()
}

/// What `status` says of the daemon, which has to run.
#[track_caller]
fn status(user: &User<'_>) -> Value {
    serde_json::from_str(&user.says("wtd-client status --json")).unwrap()
}

#[test]
fn the_first_question_starts_the_daemon() {
    on_each_debian(|machine| {
        let alice = machine.log_in("alice");
        let said = alice.says(INSTALL);
        assert!(said.contains("systemd listens on the socket"), "{said}");
        assert_eq!(property(&alice, "wtd.socket", "ActiveState"), "active");
        assert_eq!(property(&alice, "wtd.socket", "UnitFileState"), "enabled");
        assert_eq!(property(&alice, "wtd.service", "ActiveState"), "inactive");
        assert_eq!(
            alice.says("stat -c '%a %U' $XDG_RUNTIME_DIR/wtd $XDG_RUNTIME_DIR/wtd/wtd.sock"),
            "700 alice\n600 alice"
        );
        let variables = alice.says("git init -q shop; cd shop; wtd-client env --shell bash");
        assert!(variables.contains("export DB_HOST_PORT=5432"), "{variables}");
        assert_eq!(property(&alice, "wtd.service", "ActiveState"), "active");
        assert_eq!(status(&alice)["socket_from"], "systemd");
        // Without the session's variables it is the same one that answers.
        let bare = alice.says("env -i HOME=$HOME $(command -v wtd-client) --no-start status --json");
        assert_eq!(serde_json::from_str::<Value>(&bare).unwrap()["pid"], status(&alice)["pid"]);
    });
}

#[test]
fn a_hung_daemon_is_restarted_and_whoever_asked_it_is_answered() {
    on_each_debian(|machine| {
        let alice = machine.log_in("alice");
        install(&alice);
        alice.says(SHOP);
        drop_in(&alice, "Service", "WatchdogSec=8");
        alice.says("systemctl --user restart wtd.service");
        let before = status(&alice);
        alice.says("systemctl --user kill --signal=STOP wtd.service");
        // Nothing but the watchdog can bring the answer about.
        assert_eq!(alice.says("wtd-client get PORT_OFFSET --path ~/search --timeout 30s"), "10000");
        assert_ne!(status(&alice)["pid"], before["pid"]);
        assert_eq!(property(&alice, "wtd.service", "NRestarts"), "1");
        let journal = alice.says("journalctl --user --unit=wtd.service --output=cat");
        assert!(journal.contains("Watchdog timeout") && journal.contains("'watchdog'"), "{journal}");
    });
}

#[test]
fn a_killed_daemon_comes_back_behind_the_same_socket() {
    on_each_debian(|machine| {
        let alice = machine.log_in("alice");
        install(&alice);
        alice.says(SHOP);
        let (socket, before) = (alice.says("stat -c %i $XDG_RUNTIME_DIR/wtd/wtd.sock"), status(&alice));
        for _ in 0..3 {
            alice.says("systemctl --user kill --signal=KILL wtd.service");
            assert_eq!(offset(&alice, "~/search"), 10_000);
        }
        assert_ne!(status(&alice)["pid"], before["pid"]);
        assert_eq!(alice.says("stat -c %i $XDG_RUNTIME_DIR/wtd/wtd.sock"), socket);
        // And with nobody asking.
        alice.says("systemctl --user kill --signal=KILL wtd.service");
        alice.says("git -C ~/shop worktree add -q ~/later");
        alice.says("until systemctl --user --quiet is-active wtd.service; do sleep 0.1; done");
        assert_eq!(offset(&alice, "~/later"), 20_000);
    });
}

#[test]
fn a_daemon_that_could_not_start_is_started_by_the_first_question_after_the_cause_is_gone() {
    on_each_debian(|machine| {
        let alice = machine.log_in("alice");
        install(&alice);
        alice.says(SHOP);
        alice.says("mkdir -p ~/.config/wtd; echo 'step = 0' >~/.config/wtd/config.toml");
        let start = alice.run("systemctl --user restart wtd.service");
        assert_ne!(start.code, Some(0), "it is waited for until it says that it is ready: {start:#?}");
        // Many shells meanwhile: each is answered from the allocation file, and none makes systemd give up.
        alice.says("for _ in {1..50}; do [[ $(wtd-client get PORT_OFFSET --path ~/search) == 10000 ]]; done");
        let unanswered = alice.run("wtd-client list");
        assert_eq!(unanswered.code, Some(4), "{unanswered:#?}");
        let journal = alice.says("journalctl --user --unit=wtd.service --output=cat");
        assert!(journal.contains("config.toml:1: \"0\" is not a step"), "{journal}");
        assert_eq!(property(&alice, "wtd.socket", "ActiveState"), "active");
        alice.says("rm ~/.config/wtd/config.toml");
        alice.says("wtd-client list");
        assert_eq!(status(&alice)["socket_from"], "systemd");
    });
}

#[test]
fn the_journal_can_be_searched_by_worktree_and_offset() {
    on_each_debian(|machine| {
        let alice = machine.log_in("alice");
        install(&alice);
        alice.says(SHOP);
        machine.root("journalctl --sync").ok();
        let lines = alice.says("journalctl --user --output=json WTD_OFFSET=10000");
        let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        for (field, value) in [
            ("MESSAGE", "allocation changed"),
            ("SYSLOG_IDENTIFIER", "wtd"),
            ("PRIORITY", "5"),
            ("WTD_KIND", "allocated"),
            ("WTD_REPOSITORY", "/home/alice/shop/.git"),
            ("WTD_WORKTREE", "/home/alice/search"),
            ("_SYSTEMD_USER_UNIT", "wtd.service"),
        ] {
            assert_eq!(line[field], value, "{field}: {line:#}");
        }
        assert_eq!(
            alice.says("journalctl --user --output=cat WTD_WORKTREE=/home/alice/search"),
            "allocation changed"
        );
    });
}

#[test]
fn systemctl_reload_puts_the_file_in_force_or_says_what_is_wrong_with_it() {
    on_each_debian(|machine| {
        let alice = machine.log_in("alice");
        install(&alice);
        alice.says(SHOP);
        let before = status(&alice);
        alice.says("mkdir -p ~/.config/wtd; echo 'reserved_ports = [25432]' >~/.config/wtd/config.toml");
        alice.says("systemctl --user reload wtd.service; git -C ~/shop worktree add -q ~/one");
        assert_eq!(offset(&alice, "~/one"), 30_000);
        alice.says("echo 'reserved_ports = [0]' >~/.config/wtd/config.toml");
        let refused = alice.run("systemctl --user reload wtd.service");
        assert_ne!(refused.code, Some(0), "{refused:#?}");
        let shown = alice.says("systemctl --user --no-pager --lines=0 status wtd.service");
        assert!(shown.contains("configuration not reloaded") && shown.contains("config.toml:1: "), "{shown}");
        assert_eq!(property(&alice, "wtd.service", "ActiveState"), "active");
        // The signal does the same.
        alice.says(
            "echo 'step = 1000' >~/.config/wtd/config.toml; systemctl --user kill --signal=HUP wtd.service",
        );
        alice.says(
            "until [[ -z $(systemctl --user show --property=StatusText --value wtd) ]]; do sleep 0.1; done",
        );
        alice.says("git -C ~/shop worktree add -q ~/two");
        assert_eq!(offset(&alice, "~/two"), 1000);
        assert_eq!((offset(&alice, "~/one"), status(&alice)["pid"].clone()), (30_000, before["pid"].clone()));
    });
}

#[test]
fn an_upgrade_fails_no_request() {
    on_each_debian(|machine| {
        let alice = machine.log_in("alice");
        install(&alice);
        alice.says(SHOP);
        let before = status(&alice);
        let asked = alice.says(&format!(
            "ask() {{
                local count=0
                until [[ -e ~/done ]]; do
                    [[ $(wtd-client get PORT_OFFSET --path \"$1\") == \"$2\" ]] || exit 1
                    count=$((count + 1))
                done
                echo $count
            }}
            pids=()
            for _ in 1 2; do
                ask ~/shop 0 & pids+=($!)
                ask ~/search 10000 & pids+=($!)
            done
            {INSTALL} >&2
            touch ~/done
            for pid in ${{pids[@]}}; do wait $pid; done"
        ));
        assert_eq!(asked.lines().count(), 4, "{asked}");
        assert!(asked.lines().all(|count| count.parse::<u32>().unwrap() > 2), "{asked}");
        assert_ne!(status(&alice)["pid"], before["pid"]);
    });
}

#[test]
fn a_reboot_changes_no_offset() {
    on_each_debian(|machine| {
        let before = {
            let alice = machine.log_in("alice");
            install(&alice);
            alice.says(SHOP);
            alice.says("git -C ~/shop worktree add -q ~/removed; git -C ~/shop worktree add -q ~/moved");
            assert_eq!((offset(&alice, "~/removed"), offset(&alice, "~/moved")), (20_000, 30_000));
            // What happens with no daemon there is made out afterwards.
            alice.says("systemctl --user stop wtd.socket wtd.service");
            alice.says("git -C ~/shop worktree remove ~/removed; git -C ~/shop worktree move ~/moved ~/kept");
            alice.says("cd ~/search; wtd-client --no-start env --shell bash")
        };
        machine.reboot();
        let alice = machine.log_in("alice");
        assert_eq!(property(&alice, "wtd.service", "ActiveState"), "inactive");
        assert_eq!(alice.says("cd ~/search; wtd-client env --shell bash"), before);
        assert_eq!((offset(&alice, "~/shop"), offset(&alice, "~/kept")), (0, 30_000));
        alice.says("git -C ~/shop worktree add -q ~/added");
        assert_eq!(offset(&alice, "~/added"), 20_000);
    });
}

#[test]
fn uninstall_leaves_nothing_but_the_registry() {
    on_each_debian(|machine| {
        let alice = machine.log_in("alice");
        let files = || {
            alice.says("find ~ ! -type d; if [[ -e $XDG_RUNTIME_DIR/wtd ]]; then find $XDG_RUNTIME_DIR/wtd ! -type d; fi")
        };
        let before = files();
        install(&alice);
        alice.says("git init -q shop; cd shop; wtd-client env >&2; rm -r ~/shop");
        let said = alice.says("/wtd/scripts/uninstall");
        assert!(said.contains("/home/alice/.local/state/wtd"), "{said}");
        let after = files();
        let left: Vec<_> = after.lines().filter(|file| !before.lines().any(|old| old == *file)).collect();
        assert!(
            left.iter().all(|file| file.starts_with("/home/alice/.local/state/wtd/registry.")),
            "{left:#?}"
        );
        assert!(left.contains(&"/home/alice/.local/state/wtd/registry.db"), "{left:#?}");
        let units = alice.says("systemctl --user list-units --all --no-legend 'wtd.*'; systemctl --user list-unit-files --no-legend 'wtd.*' || true");
        assert_eq!(units, "");
        assert_eq!(machine.root("pgrep wtd || true").ok(), "");
    });
}

#[test]
fn who_logs_out_is_served_on_only_with_linger() {
    on_each_debian(|machine| {
        let alice = machine.log_in("alice");
        install(&alice);
        alice.says(SHOP);
        alice.log_out();
        machine.root("systemctl is-active --wait user@1000.service || true").ok();
        machine.root("! pgrep wtd").ok();
        // From cron, say: no session, no manager, and no variable of one.
        let from_cron = "setpriv --reuid=alice --regid=alice --init-groups env -i HOME=/home/alice \
             /home/alice/.local/bin/wtd-client";
        let file = machine.root(&format!("{from_cron} --no-start get PORT_OFFSET --path /home/alice/search"));
        assert_eq!(file.ok(), "10000\n", "from the allocation file");

        machine.root("loginctl enable-linger alice; systemctl start user@1000.service").ok();
        let status = machine.root(&format!(
            "{from_cron} get PORT_OFFSET --path /home/alice/search; {from_cron} status --json"
        ));
        let status = status.ok();
        assert!(status.starts_with("10000\n"), "{status}");
        assert!(status.contains("\"socket_from\": \"systemd\""), "{status}");
        machine.reboot();
        let status = machine.root(&format!(
            "{from_cron} get PORT_OFFSET --path /home/alice/search; {from_cron} status --json"
        ));
        assert!(status.ok().contains("\"socket_from\": \"systemd\""));
    });
}

#[test]
fn the_hardened_daemon_reaches_repositories_git_ports_and_its_registry() {
    on_each_debian(|machine| {
        machine.root("install --directory --owner=alice /srv/git").ok();
        let alice = machine.log_in("alice");
        install(&alice);
        // Somebody listens on the port that the first worktree would have.
        alice.says(
            "systemd-run --user --quiet --unit=held --socket-property=ListenStream=127.0.0.1:5432 true",
        );
        for place in ["~", "/tmp", "/var/tmp", "/srv/git"] {
            alice.says(&format!(
                "git init -q {place}/shop; git -C {place}/shop commit -q --allow-empty -m first
                wtd-client add --timeout 20s {place}/shop
                git -C {place}/shop worktree add -q {place}/linked; git -C {place}/shop worktree add -q {place}/gone"
            ));
            let (main, linked) =
                (offset(&alice, &format!("{place}/shop")), offset(&alice, &format!("{place}/linked")));
            assert!(main != 0 && linked != 0, "somebody listens on 5432");
            // What can't be written in a git dir is known by its inode; here it is written.
            let git_dirs = [format!("{place}/shop/.git"), format!("{place}/shop/.git/worktrees/linked")];
            for git_dir in git_dirs {
                let written = || alice.run(&format!("test -s {git_dir}/wtd.json")).code;
                until("its allocation file is there", written, |code| *code == Some(0));
            }
            alice.says(&format!("git -C {place}/shop worktree remove {place}/gone"));
            let state = || {
                let rows: Value = serde_json::from_str(&alice.says("wtd-client list --all --json")).unwrap();
                let is_gone = |row: &&Value| row["path"].as_str().unwrap().ends_with("/gone");
                rows.as_array().unwrap().iter().rfind(is_gone).unwrap()["state"].clone()
            };
            until("git itself was asked", state, |state| *state == "released");
        }
        let restarted = "systemctl --user restart wtd.service; wtd-client list --json";
        let rows: Value = serde_json::from_str(&alice.says(restarted)).unwrap();
        assert_eq!(rows.as_array().unwrap().len(), 8, "the registry has it all: {rows:#}");
        let confined = alice.says(
            "grep -E '^(NoNewPrivs|Seccomp):' /proc/$(systemctl --user show --property=MainPID --value wtd)/status",
        );
        assert_eq!(confined, "NoNewPrivs:\t1\nSeccomp:\t2");
        let journal = alice.says("journalctl --user --unit=wtd.service --output=cat --priority=warning");
        assert_eq!(journal, "", "nothing was refused");
    });
}

#[test]
fn the_hardened_daemon_reaches_the_engine_that_its_user_may_use() {
    let Some(engine) = engine::Engine::start() else { return };
    engine.lend_to_group(ENGINE_GROUP);
    let socket = format!("--bind={}:/run/docker.sock", engine.socket().display());
    on_each_debian_with(&[socket], |machine| {
        machine
            .root(&format!("groupadd --gid={ENGINE_GROUP} docker; usermod --append --groups=docker alice"))
            .ok();
        let alice = machine.log_in("alice");
        install(&alice);
        alice.says(SHOP);
        let checks: Value = serde_json::from_str(&alice.says("wtd-client doctor --json || true")).unwrap();
        let check = checks.as_array().unwrap().iter().find(|check| check["check"] == "container engine");
        assert_eq!(check.unwrap()["status"], "ok", "{checks:#}");
        // Without a person's environment, on the daemon's own: what is left of a worktree keeps its offset, and is dropped.
        let file: Value =
            serde_json::from_str(&alice.says("cat ~/shop/.git/worktrees/search/wtd.json")).unwrap();
        engine.volume("db_data_10000", &[("dev.wtd.allocation", file["id"].as_str().unwrap())]);
        alice.says("git -C ~/shop worktree remove ~/search");
        let dropped = alice.says("wtd-client gc -y --json");
        let rows: Value = serde_json::from_str(&dropped).unwrap();
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == "db_data_10000");
        assert_eq!(
            (&row.unwrap()["action"], &row.unwrap()["done"]),
            (&"drop".into(), &true.into()),
            "{rows:#}"
        );
        assert!(!engine.volumes().contains("db_data_10000"));
    });
}

#[test]
fn the_units_are_clean() {
    on_each_debian(|machine| {
        let alice = machine.log_in("alice");
        install(&alice);
        let verified = alice.run("systemd-analyze --user verify wtd.socket wtd.service");
        assert_eq!((verified.code, verified.text() + &verified.stderr), (Some(0), String::new()));
    });
}
