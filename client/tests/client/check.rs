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

#[test]
fn a_main_worktree_has_no_project_name_of_another_worktree() {
    let sandbox = Sandbox::new();
    let mut main = allocation(Path::new("/w"), &[("PORT_OFFSET", "0"), ("DB_HOST_PORT", "5432")]);
    (main["main"], main["offset"]) = (true.into(), 0.into());
    let server = Server::saying(&sandbox, answer(200, &main));
    let variables = [("WTD_WORKTREE", "/w"), ("PORT_OFFSET", "0"), ("DB_HOST_PORT", "5432")];
    let client = |command: &[&str], name: &str| {
        let mut client = server.client(&sandbox, command);
        run(client.envs(variables).env("COMPOSE_PROJECT_NAME", name))
    };
    client(&["check"], "x-10000").failed(1, "COMPOSE_PROJECT_NAME is another worktree's");
    assert!(client(&["env", "--shell=sh"], "x-10000").done().contains("unset COMPOSE_PROJECT_NAME"));
    assert_eq!(
        client(&["exec", "sh", "-c", "echo ${COMPOSE_PROJECT_NAME-none}"], "x-10000").done(),
        "none\n"
    );
    // A person's own.
    for name in ["x", "mine", "x-test"] {
        assert_eq!(client(&["check"], name).done(), "");
    }
}
