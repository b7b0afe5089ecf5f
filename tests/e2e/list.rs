//! What `list` tells is what is there when somebody asks.

use std::fs;

use crate::harness::{Sandbox, Terminal};

#[test]
fn a_configuration_that_was_changed_is_told_of_at_once_whoever_uses_it() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let (linked, own) = (repo.add("linked"), repo.add("own"));
    daemon.put(&repo.path);
    fs::write(repo.path.join("wtd.toml"), "[ports]\nUI_PORT = 3000\n").unwrap();
    fs::write(own.join("wtd.toml"), "[ports]\nUI_PORT = 4000\n").unwrap();
    let rows = sandbox.list();
    for (path, base) in [(&repo.path, 3000), (&linked, 3000), (&own, 4000)] {
        let row = rows.at(path);
        assert_eq!(row.ports.get("UI_PORT"), Some(&(base + row.offset)), "{row:#?}");
    }
    fs::write(own.join("wtd.toml"), "[ports]\nUI_PORT = \"x\"\n").unwrap();
    let warnings = sandbox.list().at(&own).warnings.join("\n");
    assert!(warnings.contains("wtd.toml:2"), "{warnings}");
    fs::remove_file(repo.path.join("wtd.toml")).unwrap();
    let checks = sandbox.client_in(&repo.path, ["doctor"]).text();
    assert!(checks.contains("wtd.toml:2"), "{checks}");
    assert_eq!(sandbox.list().at(&linked).ports.keys().collect::<Vec<_>>(), ["DB_HOST_PORT"]);
}

#[test]
fn what_the_worktrees_of_a_repository_share_is_told_once() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    for name in ["app", "other"] {
        let repo = sandbox.repo(name);
        repo.add("linked");
        fs::write(repo.path.join("wtd.toml"), "[ports]\nUI_PORT = 70000\n").unwrap();
        daemon.put(&repo.path);
        daemon.await_agreement(&repo);
    }
    let text = sandbox.client(["list"]).ok();
    let notes: Vec<_> = text.lines().filter(|line| line.contains("UI_PORT: ")).collect();
    assert_eq!(notes.len(), 2, "{text}");
    assert!(notes[0].starts_with("0 main, 10000 linked: ") && notes[0].contains("app/wtd.toml:2"), "{text}");
    assert!(
        notes[1].starts_with("20000 main, 30000 linked: ") && notes[1].contains("other/wtd.toml:2"),
        "{text}"
    );
}

#[test]
fn a_terminal_that_is_too_narrow_for_the_table_shows_each_worktree_as_a_record() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let linked = repo.add("linked");
    daemon.put(&repo.path);
    daemon.await_agreement(&repo);
    let mut terminal = Terminal::start(&sandbox, "bash", "", &repo.path);
    let wide = terminal.ok("wtd-client list");
    assert_eq!(wide.lines().count(), 3, "{wide}");
    let narrow = terminal.ok("stty cols 40; wtd-client list; stty cols 4000");
    for line in [&format!("WORKTREE    {}", linked.display()), "BRANCH      linked", "OFFSET      10000"] {
        assert!(narrow.lines().any(|shown| shown == line), "{line}: {narrow}");
    }
}
