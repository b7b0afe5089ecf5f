//! `check`: whether the shell's variables are this worktree's.

use std::path::Path;

use crate::support::{Sandbox, Server, allocation, answer, problem, run};

#[test]
fn check_compares_the_shell_with_the_worktree() {
    let sandbox = Sandbox::new();
    let server = Server::saying(&sandbox, answer(200, &allocation(Path::new("/w"), &[])));
    let mut client = server.client(&sandbox, &["check"]);
    run(&mut client).failed(1, "no variables of /w");
    client.env("WTD_WORKTREE", "/w").env("PORT_OFFSET", "10000").env("DB_HOST_PORT", "15432");
    assert_eq!(run(&mut client).done(), "");
    run(client.env("DB_HOST_PORT", "5432")).failed(1, "DB_HOST_PORT is 5432");
    run(client.env("WTD_WORKTREE", "/other")).failed(1, "those of /other");
}

#[test]
fn outside_of_a_worktree_check_minds_only_left_overs() {
    let sandbox = Sandbox::new();
    let server = Server::saying(&sandbox, problem(404, "not-in-a-worktree", "/x", ""));
    let mut client = server.client(&sandbox, &["check"]);
    assert_eq!(run(&mut client).done(), "");
    run(client.env("WTD_WORKTREE", "/w")).failed(1, "those of /w");
}
