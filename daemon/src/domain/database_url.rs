//! A connection URL (PostgreSQL manual, 34.1.1.2): where a server is, and as whom to come to it.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the server alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What a connection URL says; none where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseUrl {
    /// A host's name or address, or the directory of a Unix socket.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The role.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The database to connect to where none is meant in particular.
    pub database: Option<String>,
    /// `sslmode`.
    pub ssl_mode: Option<String>,
}

/// Why a text is no connection URL. It does not repeat the text, which may have a password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Not of the form of a URL.
    #[error("it is not a URL: write postgresql://USER@HOST:PORT/DATABASE")]
    Form,
    /// Another scheme.
    #[error("a connection URL begins with postgresql://")]
    Scheme,
    /// A parameter that means nothing here.
    #[error("of the parameters behind the ? only host, port, user, password, dbname and sslmode are taken")]
    Parameter,
}

impl DatabaseUrl {
    /// The URL that `text` is.
    pub fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        let url = Url::parse(text).map_err(|_| DatabaseUrlError::Form)?;
        if !matches!(url.scheme(), "postgresql" | "postgres") || url.cannot_be_a_base() {
            return Err(DatabaseUrlError::Scheme);
        }
        let decoded = |text: &str| -> Result<Option<String>, DatabaseUrlError> {
            let text = percent_decode_str(text).decode_utf8().map_err(|_| DatabaseUrlError::Form)?;
            if text.contains('\0') {
                return Err(DatabaseUrlError::Form);
            }
            Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
        };
        let host = url.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']'));
        let mut parsed = Self {
            host: decoded(host.unwrap_or_default())?,
            port: url.port(),
            user: decoded(url.username())?,
            password: decoded(url.password().unwrap_or_default())?.map(Secret),
            database: decoded(url.path().trim_start_matches('/'))?,
            ssl_mode: None,
        };
        for (name, value) in url.query_pairs() {
            let value = value.into_owned();
            match &*name {
                "host" => parsed.host = Some(value),
                "port" => parsed.port = Some(value.parse().map_err(|_| DatabaseUrlError::Form)?),
                "user" => parsed.user = Some(value),
                "password" => parsed.password = Some(Secret(value)),
                "dbname" => parsed.database = Some(value),
                "sslmode" => parsed.ssl_mode = Some(value),
                _ => return Err(DatabaseUrlError::Parameter),
            }
        }
        Ok(parsed)
    }

    /// Where it leads, without the password: what a person is shown who is asked to trust it.
    pub fn shown(&self) -> String {
        let host = self.host.as_deref().unwrap_or("localhost");
        let port = self.port.map(|port| format!(" port {port}")).unwrap_or_default();
        let user = self.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
        let password = if self.password.is_some() { " with a password" } else { "" };
        format!("{host}{port}{user}{password}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_as_libpq_reads_it() {
        let parse = |text: &str| DatabaseUrl::parse(text).unwrap();
        let url = parse("postgresql://me:p%40ss%3Aword@127.0.0.1:5433/shop%2D1?sslmode=disable");
        assert_eq!(
            (url.host.as_deref(), url.port, url.user.as_deref(), url.database.as_deref()),
            (Some("127.0.0.1"), Some(5433), Some("me"), Some("shop-1"))
        );
        assert_eq!(url.password.unwrap().reveal(), "p@ss:word");
        assert_eq!(url.ssl_mode.as_deref(), Some("disable"));
        assert_eq!(parse("postgres://[::1]/").host.as_deref(), Some("::1"));
        assert_eq!(parse("postgresql://%2Frun%2Fpg/x").host.as_deref(), Some("/run/pg"));
        assert_eq!(parse("postgresql:///x?host=/run/pg&user=u").host.as_deref(), Some("/run/pg"));
        assert_eq!(
            parse("postgresql://localhost"),
            DatabaseUrl { host: Some("localhost".into()), ..DatabaseUrl::default() }
        );
    }

    #[test]
    fn what_is_no_connection_url_is_refused_and_not_repeated() {
        for text in [
            "",
            "hunter2",
            "mysql://u:hunter2@h/d",
            "postgresql:hunter2",
            "postgresql://u:hunter2@h:99999/d",
            "postgresql://u:hunter2@h/d?passwrd=hunter2",
            "postgresql://u:hunter2%00@h/d",
            "postgresql://u:hunter2@h/d?options=-csearch_path%3Dx",
        ] {
            let error = DatabaseUrl::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let url = DatabaseUrl::parse("postgresql://me:hunter2@localhost:5432/x").unwrap();
        assert_eq!(url.shown(), "localhost port 5432 as me with a password");
        assert!(!format!("{url:?}").contains("hunter2"));
    }
}
