//! Which offset a worktree gets, and how long it keeps it.

use std::fs;
use std::net::TcpListener;

use crate::harness::{Holder, Ran, Repo, Sandbox, free_base, require, until};

/// A container engine that is configured and doesn't answer: what it has is unknown.
const ENGINE_DOWN: &str = "engine = \"unix:///nonexistent/engine.sock\"\nprobe = false\n";

/// Nothing but the look at ports of the machine.
const PROBING: &str = "engine = \"none\"\nprobe = true\n";

fn declare_port(repo: &Repo<'_>, base: u16) {
    fs::write(repo.path.join("wtd.toml"), format!("[ports]\nDB_HOST_PORT = {base}\n")).unwrap();
}

#[test]
fn worktrees_get_0_then_10000_then_20000_with_nobody_asking() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    sandbox.client(["add", "app"]).ok();
    let rows = daemon.await_agreement(&repo);
    assert_eq!((rows.at(&repo.path).offset, rows.at(&repo.path).main), (0, true));

    let (one, two) = (repo.add("one"), repo.add("two"));
    let rows = daemon.await_agreement(&repo);
    assert_eq!((rows.at(&one).offset, rows.at(&two).offset), (10_000, 20_000));
    let row = rows.at(&one);
    assert_eq!(row.ports.iter().collect::<Vec<_>>(), [(&"DB_HOST_PORT".to_owned(), &15_432)]);
    assert_eq!(
        (row.volume.as_str(), row.database.as_str(), row.project.as_str()),
        ("db_data_10000", "app-10000", "app")
    );
    assert_eq!((row.branch.as_deref(), row.main, row.conflicts.len()), (Some("one"), false, 0));
    assert!(row.since.ends_with('Z'), "RFC 3339, UTC: {}", row.since);
}

#[test]
fn a_freed_offset_is_the_first_to_be_given_again() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let (one, two) = (repo.add("one"), repo.add("two"));
    daemon.await_agreement(&repo);
    repo.remove(&one);
    daemon.await_state(&one, "released");
    let three = repo.add("three");
    let rows = daemon.await_agreement(&repo);
    assert_eq!((rows.at(&three).offset, rows.at(&two).offset), (10_000, 20_000));
}

#[test]
fn without_an_answer_of_the_engine_a_stale_offset_stays_out_of_reach() {
    let sandbox = Sandbox::with_config(ENGINE_DOWN);
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.await_agreement(&repo);
    repo.remove(&one);
    let rows = daemon.await_state(&one, "stale");
    assert_eq!(rows.iter().filter(|row| row.exact_path() == one).count(), 1);
    // In its place, and under its id.
    let two = one.clone();
    repo.add_at(&two, "two");
    assert_eq!(daemon.await_agreement(&repo).at(&two).offset, 20_000);
    let rows = sandbox.list_all();
    let stale = rows.iter().find(|row| row.is("stale")).unwrap();
    assert_eq!((stale.offset, stale.branch.as_deref(), &stale.exact_path()), (10_000, None, &one));
    let shown = sandbox.list();
    assert!(shown.iter().all(|row| !row.is("stale")), "only --all shows it: {shown:#?}");
    drop(daemon);
    let daemon = sandbox.daemon();
    let rows = daemon.await_state(&one, "stale");
    assert_eq!(rows.at(&two).offset, 20_000);
}

#[test]
fn who_had_which_offset_is_remembered() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    let first = daemon.await_agreement(&repo).at(&one).id.clone();
    repo.remove(&one);
    daemon.await_state(&one, "released");
    let again = repo.add("again");
    let second = daemon.await_agreement(&repo).at(&again).id.clone();
    assert_ne!(first, second);
    let rows = sandbox.list_all();
    let released = rows.id(&first).unwrap();
    assert_eq!((released.offset, released.state.as_str(), released.exact_path()), (10_000, "released", one));

    let mut events = daemon.events(Some(0));
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let event = events.next();
        let allocation = &event.data["allocation"];
        seen.push((event.kind, allocation["id"].as_str().unwrap().to_owned(), allocation["offset"].as_u64()));
    }
    let of = |id: &str| -> Vec<&str> {
        seen.iter()
            .filter(|(_, of, offset)| of == id && *offset == Some(10_000))
            .map(|(kind, ..)| kind.as_str())
            .collect()
    };
    assert_eq!(of(&first), ["allocated", "stale", "released"]);
    assert_eq!(of(&second), ["allocated"]);
}

#[test]
fn when_no_offset_is_left_the_error_counts_allocations_and_names_gc() {
    let sandbox = Sandbox::with_config(ENGINE_DOWN);
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    declare_port(&repo, 65_500);
    daemon.put(&repo.path);
    // Above 65500 fit the offsets 0, 10, 20 and 30.
    // One after the other: those that are seen together take their offsets in whatever order they are seen.
    let three = ["one", "two", "three"].map(|name| {
        let path = repo.add(name);
        daemon.await_state(&path, "active");
        path
    });
    let rows = daemon.await_agreement(&repo);
    assert_eq!(rows.offsets(), [0, 10, 20, 30]);
    repo.remove(&three[0]);
    daemon.await_state(&three[0], "stale");
    let four = repo.add("four");
    let line = sandbox.client_in(&four, ["env", "--shell", "sh"]).fails(5);
    for part in ["4 allocations", "1 of them stale", "wtd-client gc"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    sandbox.client_in(&four, ["get", "PORT_OFFSET"]).fails(5);
    sandbox.client_in(&four, ["exec", "--", "true"]).fails(5);
    let answer = daemon.http("PUT", "/v1/worktrees", Some(&serde_json::json!({ "path": four })));
    answer.is_problem(507, "offsets-exhausted");
    assert_eq!(sandbox.list().find(&four).map(|row| row.offset), None);
    assert_eq!(sandbox.offset(&three[1]), 20, "those who have one keep it");
}

#[test]
fn a_worktree_that_found_no_offset_gets_the_next_that_is_free() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    declare_port(&repo, 65_516);
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.await_state(&one, "active");
    let two = repo.add("two");
    sandbox.client_in(&two, ["get", "PORT_OFFSET"]).fails(5);
    repo.remove(&one);
    daemon.await_state(&two, "active");
    assert_eq!(sandbox.offset(&two), 10);
}

#[test]
fn reserved_ports_are_never_given() {
    let sandbox =
        Sandbox::with_config("engine = \"none\"\nprobe = false\nreserved_ports = [5432, \"15000-15999\"]\n");
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let row = daemon.await_agreement(&repo).at(&repo.path).clone();
    assert_eq!(row.offset, 20_000);
    let text = format!("{:?}", row.passed_over);
    assert!(text.contains("5432") && text.contains("15432") && text.contains("reserved_ports"), "{text}");
}

#[test]
fn the_step_between_offsets_is_configurable() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nstep = 100\n");
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    repo.add("one");
    repo.add("two");
    assert_eq!(daemon.await_agreement(&repo).offsets(), [0, 100, 200]);
}

#[test]
fn ports_of_the_ephemeral_range_are_passed_over_only_when_that_is_asked_for() {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let range: Vec<u16> = range.split_whitespace().map_while(|end| end.parse().ok()).collect();
    let [first, last] = range[..] else {
        require::part(false, "this system has no ip_local_port_range");
        return;
    };
    let ephemeral = |port: &u16| (first..=last).contains(port);
    for avoid in [false, true] {
        let config = format!("engine = \"none\"\nprobe = false\navoid_ephemeral = {avoid}\n");
        let sandbox = Sandbox::with_config(&config);
        let daemon = sandbox.daemon();
        let repo = sandbox.repo("app");
        daemon.put(&repo.path);
        for name in ["one", "two", "three", "four", "five"] {
            repo.add(name);
        }
        let rows = daemon.await_agreement(&repo);
        let given: Vec<u16> = rows.iter().flat_map(|row| row.ports.values().copied()).collect();
        if avoid {
            assert!(!given.iter().any(ephemeral), "{given:?} and {first}-{last}");
        } else {
            assert_eq!(rows.offsets(), [0, 10_000, 20_000, 30_000, 40_000, 50_000]);
            let exposed = given.iter().any(ephemeral);
            let doctor = sandbox.client(["doctor", "--json"]).text();
            assert_eq!(doctor.contains("net.ipv4.ip_local_reserved_ports"), exposed, "{doctor}");
        }
    }
}

#[test]
fn a_port_that_someone_listens_on_moves_the_next_worktree_and_list_says_who() {
    let sandbox = Sandbox::with_config(PROBING);
    let daemon = sandbox.daemon();
    for address in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
        let base = free_base();
        let Ok(_listener) = TcpListener::bind((address, base)) else { continue };
        let repo = sandbox.repo(&format!("app-{}", address.replace([':', '.'], "-")));
        declare_port(&repo, base);
        daemon.put(&repo.path);
        let row = daemon.await_agreement(&repo).at(&repo.path).clone();
        assert_ne!(row.ports["DB_HOST_PORT"], base, "{address}");
        let text = serde_json::to_string(&row.passed_over).unwrap();
        let pid = format!("pid {}", std::process::id());
        assert!(text.contains(&format!("\"port\":{base}")) && text.contains(&pid), "{address}: {text}");
        let table = sandbox.client(["list"]).ok();
        assert!(table.contains(&pid), "{table}");
        let doctor = sandbox.client(["doctor", "--json"]).text();
        assert!(doctor.contains(&format!("={base}: ")) && doctor.contains(&pid), "{doctor}");
    }
}

#[test]
fn doctor_tells_of_what_stood_in_the_way_once_for_all_worktrees() {
    let sandbox = Sandbox::with_config(PROBING);
    let daemon = sandbox.daemon();
    let base = free_base();
    let _listener = TcpListener::bind(("127.0.0.1", base)).unwrap();
    let repo = sandbox.repo("app");
    declare_port(&repo, base);
    daemon.put(&repo.path);
    for name in ["one", "two"] {
        repo.add(name);
    }
    let passed: usize = daemon.await_agreement(&repo).iter().map(|row| row.passed_over.len()).sum();
    assert!(passed >= 3, "{passed}");
    let doctor = sandbox.client(["doctor"]).text();
    let told: Vec<_> = doctor.lines().filter(|line| line.contains("passed over")).collect();
    let [line] = told[..] else { panic!("one line: {doctor}") };
    assert!(line.contains(&format!("={base}: ")), "{line}");
    assert!(line.ends_with(&format!("; `wtd-client list` shows {} more", passed - 1)), "{line}");
    assert!(doctor.contains("no port of a worktree is taken by others"), "{doctor}");
}

#[test]
fn what_listens_from_within_the_worktree_is_its_own() {
    let sandbox = Sandbox::with_config(PROBING);
    let base = free_base();
    let repo = sandbox.repo("app");
    declare_port(&repo, base);
    let _server = Holder::new(base, &repo.path);
    let daemon = sandbox.daemon();
    assert_eq!(daemon.put(&repo.path)["offset"], 0, "its server is running already");
    let row = sandbox.list().at(&repo.path).clone();
    assert_eq!((row.listening, row.conflicts), (vec!["DB_HOST_PORT".to_owned()], vec![]));
}

#[test]
fn a_port_that_someone_has_taken_since_is_shown_and_moves_nothing() {
    let sandbox = Sandbox::with_config(PROBING);
    let base = free_base();
    let repo = sandbox.repo("app");
    declare_port(&repo, base);
    let daemon = sandbox.daemon();
    assert_eq!(daemon.put(&repo.path)["offset"], 0);
    let stranger = Holder::new(base, sandbox.root());
    let pid = format!("(pid {})", stranger.pid());
    let row = sandbox.list().at(&repo.path).clone();
    let conflicts = serde_json::to_string(&row.conflicts).unwrap();
    assert!(conflicts.contains("DB_HOST_PORT") && conflicts.contains(&pid), "{conflicts}");
    assert_eq!(row.offset, 0);
    assert!(sandbox.client(["list"]).ok().contains(&pid));
    assert!(sandbox.client(["doctor", "--json"]).text().contains(&pid));
    daemon.terminate();
    let _daemon = sandbox.daemon();
    assert_eq!(sandbox.offset(&repo.path), 0, "not at a restart either");
    drop(stranger);
    until("the conflict is over", || sandbox.list().at(&repo.path).conflicts.len(), |count| *count == 0);
}

#[test]
fn reassign_moves_a_worktree_past_a_port_that_is_taken() {
    let sandbox = Sandbox::with_config(PROBING);
    let base = free_base();
    let repo = sandbox.repo("app");
    declare_port(&repo, base);
    let daemon = sandbox.daemon();
    let before = daemon.put(&repo.path)["id"].clone();
    let stranger = Holder::new(base, sandbox.root());
    let text = sandbox.client_in(&repo.path, ["reassign"]).ok();
    assert!(text.contains("10000"), "{text}");
    let row = sandbox.list().at(&repo.path).clone();
    assert_eq!((row.offset, row.volume.as_str()), (10_000, "db_data_10000"));
    assert_ne!(row.id, before.as_str().unwrap());
    drop(stranger);
    daemon.terminate();
    let _daemon = sandbox.daemon();
    assert_eq!(sandbox.offset(&repo.path), 10_000, "and there it stays");
}

#[test]
fn reassign_is_refused_while_nobody_can_say_whether_the_volume_exists() {
    let sandbox = Sandbox::with_config(ENGINE_DOWN);
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let line = sandbox.client_in(&repo.path, ["reassign"]).fails(1);
    assert!(line.contains("--force"), "{line}");
    assert_eq!(sandbox.offset(&repo.path), 0);
    sandbox.client_in(&repo.path, ["reassign", "--force"]).ok();
    assert_eq!(sandbox.offset(&repo.path), 10_000);
    let old = sandbox.list_all().iter().find(|row| row.offset == 0).cloned().unwrap();
    assert_eq!(old.state, "stale", "its data is still under the old name");
}

#[test]
fn what_the_configuration_says_later_moves_no_offset() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.await_agreement(&repo);
    fs::write(one.join("wtd.toml"), "[ports]\nDB_HOST_PORT = 6000\nUI_PORT = 3000\n").unwrap();
    daemon.await_list("the new ports are there", |rows| rows.at(&one).ports.contains_key("UI_PORT"));
    let row = sandbox.list().at(&one).clone();
    assert_eq!((row.offset, row.ports["DB_HOST_PORT"], row.ports["UI_PORT"]), (10_000, 16_000, 13_000));
    daemon.terminate();
    sandbox.configure("engine = \"none\"\nprobe = false\nstep = 100\nreserved_ports = [16000]\n");
    let _daemon = sandbox.daemon();
    assert_eq!((sandbox.offset(&repo.path), sandbox.offset(&one)), (0, 10_000));
}

#[test]
fn a_branch_switch_moves_no_offset_and_shows() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    let before = daemon.await_agreement(&repo).at(&one).clone();
    Repo::at(&sandbox, &one).git(["switch", "-q", "-c", "other/name"]);
    let after = sandbox.list().at(&one).clone();
    assert_eq!(after.branch.as_deref(), Some("other/name"));
    assert_eq!((after.id, after.offset), (before.id, before.offset));
    Repo::at(&sandbox, &one).git(["switch", "-q", "--detach"]);
    assert_eq!(sandbox.list().at(&one).branch, None);
}

#[test]
fn a_copy_of_a_repository_gets_allocations_of_its_own() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let inside = repo.path.join("inside");
    repo.add_at(&inside, "inside");
    daemon.await_agreement(&repo);
    let copy = Repo::at(&sandbox, &sandbox.path("copy"));
    Ran::of(sandbox.command("cp").arg("-a").arg(&repo.path).arg(&copy.path)).ok();
    assert!(copy.path.join(".git/wtd.json").exists(), "the copy has the original's file");
    assert_eq!(sandbox.offset(&copy.path), 20_000);
    let rows = sandbox.list();
    rows.assert_disjoint();
    assert_eq!((rows.at(&repo.path).offset, rows.at(&inside).offset), (0, 10_000));
    let (original, copied) = (rows.at(&repo.path), rows.at(&copy.path));
    assert_ne!(original.id, copied.id);
    assert_eq!(sandbox.offset(&repo.path), 0, "the original keeps its own");
}

#[test]
fn two_projects_never_get_the_same_port_whatever_their_base_ports() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    // 15432 - 5432 is one step: the second project's first port is the first one's second.
    let (one, two) = (sandbox.repo("one"), sandbox.repo("two"));
    fs::write(two.path.join("wtd.toml"), "[ports]\nDB_HOST_PORT = 15432\nUI_PORT = 5432\n").unwrap();
    daemon.put(&one.path);
    daemon.put(&two.path);
    for name in ["a", "b"] {
        one.add(name);
        two.add(name);
    }
    daemon.await_agreement(&one);
    let rows = daemon.await_agreement(&two);
    rows.assert_disjoint();
    assert_eq!(rows.active(None).len(), 6);
}

#[test]
fn worktrees_that_are_seen_together_get_their_offsets_in_the_order_in_which_git_made_them() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    let before = ["c", "a", "b"].map(|name| repo.add(name));
    let daemon = sandbox.daemon();
    daemon.put(&before[1]);
    daemon.await_agreement(&repo);
    daemon.terminate();
    let meanwhile = ["2", "1"].map(|name| repo.add(name));
    let daemon = sandbox.daemon();
    let rows = daemon.await_agreement(&repo);
    let paths = [&repo.path].into_iter().chain(&before).chain(&meanwhile);
    let offsets: Vec<_> = paths.map(|path| rows.at(path).offset).collect();
    assert_eq!(offsets, [0, 10_000, 20_000, 30_000, 40_000, 50_000]);
}

#[test]
fn every_state_survives_a_restart_and_a_crash() {
    let sandbox = Sandbox::with_config(ENGINE_DOWN);
    let mut daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let (one, two, three) = (repo.add("one"), repo.add("two"), repo.add("three"));
    daemon.await_agreement(&repo);
    repo.remove(&one);
    daemon.await_state(&one, "stale");
    fs::remove_dir_all(&two).unwrap();
    let before = daemon.await_state(&two, "missing");
    let states = |rows: &crate::harness::Rows| {
        let mut all: Vec<_> = rows
            .iter()
            .map(|row| (row.id.clone(), row.offset, row.state.clone(), row.since.clone()))
            .collect();
        all.sort();
        all
    };
    for crash in [true, false] {
        if crash {
            daemon.kill9();
        } else {
            daemon.terminate();
        }
        daemon = sandbox.daemon();
        assert_eq!(states(&sandbox.list_all()), states(&before));
    }
    assert_eq!(sandbox.offset(&three), 30_000);
}
