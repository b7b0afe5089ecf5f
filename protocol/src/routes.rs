//! Paths of the HTTP API. The version is the first segment.

/// The prefix of this version of the API.
pub const V1: &str = "/v1";
/// `GET`: worktrees with an allocation; `PUT`: the allocation of the worktree that holds a path.
pub const WORKTREES: &str = "/v1/worktrees";
/// `POST`: gives a worktree another offset.
pub const REASSIGN: &str = "/v1/worktrees/reassign";
/// `PUT`: records the Compose override of a worktree; `DELETE`: takes it away.
pub const COMPOSE: &str = "/v1/worktrees/compose";
/// `GET`: watched repositories; `PUT`: watch one; `DELETE`: forget one.
pub const REPOSITORIES: &str = "/v1/repositories";
/// `GET`: what a worktree's configuration declares that takes trust; `PUT`: trust it; `DELETE`: trust nothing of the
/// repository any more.
pub const TRUST: &str = "/v1/trust";
/// `POST`: what removed worktrees left, listed or dropped.
pub const GC: &str = "/v1/gc";
/// `POST`: brings a volume back that `gc --backup` wrote to a file.
pub const RESTORE: &str = "/v1/restore";
/// `POST`: fills a worktree's volumes with copies of another's.
pub const SEED: &str = "/v1/seed";
/// `GET`: changes of allocations as server-sent events.
pub const EVENTS: &str = "/v1/events";
/// `GET`: what the daemon is and how it fares.
pub const HEALTH: &str = "/v1/health";
/// `GET`: the checks behind `wtd-client doctor` that only the daemon can make.
pub const CHECKS: &str = "/v1/checks";
/// `POST`: reads the daemon's configuration again.
pub const RELOAD: &str = "/v1/reload";
/// `GET`: this API in OpenAPI's own terms.
pub const OPENAPI: &str = "/v1/openapi.json";
/// `GET`: Prometheus text.
pub const METRICS: &str = "/metrics";

/// All of them.
pub const ALL: [&str; 14] = [
    WORKTREES,
    REASSIGN,
    COMPOSE,
    REPOSITORIES,
    TRUST,
    GC,
    RESTORE,
    SEED,
    EVENTS,
    HEALTH,
    CHECKS,
    RELOAD,
    OPENAPI,
    METRICS,
];

/// The `Host` that requests over the Unix socket carry.
pub const HOST: &str = "wtd";
