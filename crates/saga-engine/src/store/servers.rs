//! Several servers, of which one can be written: `postgres://u:p@a:5432,b:5433/db?target_session_attrs=read-write`, as libpq
//! takes it. sqlx knows one server, so the address is taken apart here.

use std::time::Duration;

use futures::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{ConnectOptions, Connection};

use super::{Result, bounded_by, trouble};

/// The longest wait for a server that is asked whether it can be written.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before all are asked again, while none can be written.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a look: errors come by the hundred, and one look is enough for all of them.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// The servers of an address, in its order.
#[derive(Clone, Debug)]
pub struct Servers {
    each: Vec<PgConnectOptions>,
    /// Whether a connection is used only if it can write.
    pub must_write: bool,
}

impl Servers {
    /// Reads an address with one server or several.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self> {
        let (url, wanted) = without_target(url);
        let addresses = one_by_one(&url)?;
        let must_write = match wanted.as_deref() {
            None => addresses.len() > 1,
            Some("any") => false,
            Some("read-write" | "primary") => true,
            Some(other) => {
                return Err(refused(&format!(
                    "target_session_attrs={other}: the service writes; it takes read-write, primary or any"
                )));
            }
        };
        let each = addresses.iter().map(|address| address.parse()).collect::<Result<Vec<_>>>()?;
        Ok(Self { each, must_write })
    }

    /// The same with these settings.
    pub fn map(self, settings: impl Fn(PgConnectOptions) -> PgConnectOptions) -> Self {
        Self { each: self.each.into_iter().map(settings).collect(), ..self }
    }

    /// The first one.
    pub fn first(&self) -> PgConnectOptions {
        self.each.first().cloned().unwrap_or_default()
    }

    /// Keeps a pool on the server that can be written, if there are several. It looks at the start and after each trouble, and
    /// ends when the pool is closed.
    pub fn follow(self, pool: &PgPool) {
        if self.each.len() > 1 {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut closed = pool.close_event();
                // It ends with the pool.
                let _closed = closed.do_until(self.keep_on_the_right_one(&pool)).await;
            });
        }
    }

    async fn keep_on_the_right_one(&self, pool: &PgPool) {
        let mut trouble = trouble::watch();
        let mut current = 0;
        loop {
            trouble.mark_unchanged();
            match self.find().await {
                Some(found) => {
                    if found != current {
                        let server = &self.each[found];
                        tracing::warn!(
                            host = server.get_host(),
                            port = server.get_port(),
                            "Postgres is another server now"
                        );
                        pool.set_connect_options(server.clone());
                        trouble::outdate_connections();
                        current = found;
                    }
                    tokio::time::sleep(LOOK_PAUSE).await;
                    if trouble.changed().await.is_err() {
                        return;
                    }
                }
                None => {
                    tracing::warn!(servers = self.each.len(), "no Postgres of DATABASE_URL can be used now");
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
            }
        }
    }

    /// The first one that can be used.
    async fn find(&self) -> Option<usize> {
        let looks = self.each.iter().map(|server| bounded_by(LOOK_TIMEOUT, look(server, self.must_write)));
        join_all(looks).await.iter().position(Result::is_ok)
    }
}

async fn look(server: &PgConnectOptions, must_write: bool) -> Result<()> {
    let mut conn = server.connect().await?;
    if must_write {
        expect_writable(&mut conn).await?;
    }
    conn.close().await
}

/// Whether the server behind a connection can be written.
///
/// # Errors
/// When it cannot: it is in recovery, or read-only.
pub async fn expect_writable(conn: &mut PgConnection) -> Result<()> {
    let asked =
        sqlx::query_scalar!(r#"select current_setting('transaction_read_only') = 'on' as "read_only!""#);
    if !asked.fetch_one(conn).await? {
        return Ok(());
    }
    trouble::announce();
    Err(refused("this Postgres is read-only or in recovery, and one that can be written is wanted"))
}

fn refused(reason: &str) -> sqlx::Error {
    sqlx::Error::Configuration(reason.into())
}

/// The address without `target_session_attrs`, and its value.
fn without_target(url: &str) -> (String, Option<String>) {
    let Some((before, query)) = url.split_once('?') else {
        return (url.to_owned(), None);
    };
    let (mut wanted, mut others) = (None, Vec::new());
    for pair in query.split('&') {
        match pair.strip_prefix("target_session_attrs=") {
            Some(value) => wanted = Some(value.to_owned()),
            None => others.push(pair),
        }
    }
    match others.is_empty() {
        true => (before.to_owned(), wanted),
        false => (format!("{before}?{}", others.join("&")), wanted),
    }
}

/// An address for each server, alike but for host and port.
fn one_by_one(url: &str) -> Result<Vec<String>> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Ok(vec![url.to_owned()]);
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let hosts: Vec<&str> = hosts.split(',').collect();
    if hosts.len() > 1 && hosts.iter().any(|host| host.is_empty() || host.starts_with(':')) {
        return Err(refused("one of the servers of DATABASE_URL has no host"));
    }
    Ok(hosts.into_iter().map(|host| format!("{scheme}://{user}{host}{path}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (Vec<String>, bool) {
        let servers = Servers::parse(url).unwrap();
        let hosts = servers.each.iter().map(|one| {
            let database = one.get_database().unwrap_or_default();
            format!("{}@{}:{}/{database}", one.get_username(), one.get_host(), one.get_port())
        });
        (hosts.collect(), servers.must_write)
    }

    #[test]
    fn an_address_names_one_server_or_several() {
        let one = parsed("postgres://u:p@a:5433/db?sslmode=disable");
        assert_eq!(one, (vec!["u@a:5433/db".to_owned()], false));
        let several = parsed("postgres://u:p%40x@a:5433,b,[::1]:5434/db?target_session_attrs=read-write");
        let each = ["u@a:5433/db", "u@b:5432/db", "u@[::1]:5434/db"].map(str::to_owned).to_vec();
        assert_eq!(several, (each, true));
        assert!(parsed("postgres://a,b/db").1, "of several, one that can be written is wanted");
        assert!(!parsed("postgres://a,b/db?target_session_attrs=any").1);
        assert!(parsed("postgres://a/db?sslmode=disable&target_session_attrs=primary").1);
    }

    #[test]
    fn addresses_that_cannot_be_meant_are_refused() {
        for url in [
            "postgres://a,/db",
            "postgres://u@a,:5432/db",
            "postgres://a/db?target_session_attrs=standby",
            "postgres://a:port,b/db",
        ] {
            assert!(Servers::parse(url).is_err(), "{url}");
        }
    }
}
