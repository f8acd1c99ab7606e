//! How often one user, and one address, may ask for a place in line.

use std::net::IpAddr;

use super::error::Code;
use super::origin::network;
use super::pace::{Pace, TooOften};
use super::problem::{Problem, Result};
use crate::config;
use crate::ids::UserId;

/// The permits to join, on this instance.
pub struct Joins {
    users: Pace<UserId>,
    addresses: Pace<IpAddr>,
}

impl Joins {
    /// The limits of the settings.
    pub fn new(settings: &config::Queue) -> Self {
        Self {
            users: Pace::per_minute(settings.queue_joins_per_minute),
            addresses: Pace::per_minute(settings.queue_joins_per_address_per_minute),
        }
    }

    /// Takes a permit of the user and one of the address, or refuses and names the limit.
    pub fn check(&self, user: UserId, address: Option<IpAddr>) -> Result<()> {
        self.users.check(&user).map_err(|refused| too_often("A user", refused))?;
        match address {
            Some(address) => {
                self.addresses.check(&network(address)).map_err(|refused| too_often("An address", refused))
            }
            None => Ok(()),
        }
    }

    /// Forgets those who have not asked for a while.
    pub fn forget_idle(&self) {
        self.users.forget_idle();
        self.addresses.forget_idle();
    }
}

fn too_often(who: &str, refused: TooOften) -> Problem {
    let TooOften { most, wait } = refused;
    let detail = format!("{who} may ask for a place in line {most} times a minute. Wait, and ask again.");
    Problem::new(Code::RateLimited, detail).with("limit", most).after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids;

    #[test]
    fn users_of_one_network_share_its_permits_and_other_networks_have_their_own() {
        let joins = Joins { users: Pace::per_minute(60), addresses: Pace::per_minute(2) };
        let ask = |address: &str| joins.check(ids::new(), address.parse().ok());
        assert!(ask("2001:db8::1").is_ok() && ask("2001:db8::2").is_ok());
        let refused = ask("2001:db8:0:0:ffff::1").unwrap_err();
        assert_eq!(refused.code(), Code::RateLimited);
        assert!(refused.body()["detail"].as_str().unwrap().contains("An address may ask"), "{refused:?}");
        assert!(ask("2001:db8:0:1::1").is_ok());
        assert!((0..2).all(|_| ask("192.0.2.1").is_ok()) && ask("192.0.2.1").is_err());
        assert!(ask("nobody knows").is_ok());
    }
}
