//! The phase of a sale and its remaining stock, computed from settings and stock.

use chrono::{DateTime, Utc};

use super::super::queue_token::{Inventory, Phase};
use crate::store::queue::{QueueSettings, Stock};

/// `stock` is `None` while unknown, and `Some(None)` if no date is on sale or to come.
pub fn phase(
    settings: &QueueSettings,
    stock: Option<Option<Stock>>,
    opens_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Phase {
    let reached = |time: Option<DateTime<Utc>>| time.is_some_and(|time| time <= now);
    match stock {
        Some(None) => Phase::Closed,
        Some(Some(stock)) if !stock.unsold => Phase::SoldOut,
        _ if settings.paused => Phase::Paused,
        _ if opens_at.is_none() || reached(opens_at) => Phase::Open,
        _ if reached(settings.pre_queue_at) => Phase::PreQueue,
        _ => Phase::NotOpen,
    }
}

/// No stock counts as sold out.
pub fn inventory(stock: Option<&Stock>) -> Inventory {
    match stock {
        Some(stock) if stock.unsold && stock.free * 10 > stock.seats => Inventory::Available,
        Some(stock) if stock.unsold => Inventory::Low,
        _ => Inventory::SoldOut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::queue::at;

    fn stock(unsold: bool, free: i64) -> Option<Stock> {
        Some(Stock::sample(unsold, free))
    }

    #[test]
    fn a_sale_goes_through_its_phases() {
        let early = QueueSettings { pre_queue_at: Some(at(10)), ..QueueSettings::sample() };
        let during = |settings: &QueueSettings, stock, now| phase(settings, stock, Some(at(20)), at(now));
        let on_sale = Some(stock(true, 6));
        assert_eq!(during(&early, on_sale, 9), Phase::NotOpen);
        assert_eq!(during(&early, on_sale, 10), Phase::PreQueue);
        assert_eq!(during(&early, on_sale, 20), Phase::Open);
        assert_eq!(during(&QueueSettings { paused: true, ..early.clone() }, on_sale, 30), Phase::Paused);
        assert_eq!(during(&early, Some(stock(false, 0)), 30), Phase::SoldOut);
        assert_eq!(during(&early, Some(None), 30), Phase::Closed);
        assert_eq!(phase(&early, None, None, at(30)), Phase::Open, "unknown stock stops no user");
    }

    #[test]
    fn held_seats_are_not_sold_out() {
        assert_eq!(inventory(stock(true, 6).as_ref()), Inventory::Available);
        assert_eq!(inventory(stock(true, 5).as_ref()), Inventory::Low);
        assert_eq!(inventory(stock(true, 0).as_ref()), Inventory::Low);
        assert_eq!(inventory(stock(false, 0).as_ref()), Inventory::SoldOut);
        assert_eq!(inventory(None), Inventory::SoldOut);
    }
}
