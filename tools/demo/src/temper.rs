//! The kinds of buyers and how they behave.

use rand::{Rng, RngExt};

/// How a buyer behaves once seats are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Temper {
    /// Pays at once.
    Prompt,
    /// Clicks twice on "pay".
    DoubleClick,
    /// Pays when the hold has nearly run out, or just has.
    Late,
    /// Never pays.
    Never,
    /// Has too few points, is refused, tops up and pays.
    Short,
    /// Changes their mind and gives the seats back.
    DropsHold,
    /// Pays, and then cancels the tickets.
    Refunds,
}

/// Of a hundred buyers, so many are of each kind.
const OF_A_HUNDRED: [(Temper, u32); 7] = [
    (Temper::Prompt, 40),
    (Temper::DoubleClick, 8),
    (Temper::Late, 14),
    (Temper::Never, 10),
    (Temper::Short, 10),
    (Temper::DropsHold, 9),
    (Temper::Refunds, 9),
];

impl Temper {
    /// A random kind, drawn by the shares.
    pub(super) fn any(rng: &mut impl Rng) -> Self {
        let mut ticket = rng.random_range(0..100);
        for (temper, share) in OF_A_HUNDRED {
            if ticket < share {
                return temper;
            }
            ticket -= share;
        }
        Self::Prompt
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn the_shares_add_up_and_every_kind_comes() {
        assert_eq!(OF_A_HUNDRED.iter().map(|(_, share)| share).sum::<u32>(), 100);
        let mut rng = StdRng::seed_from_u64(1);
        let seen: HashSet<Temper> = (0..1_000).map(|_| Temper::any(&mut rng)).collect();
        assert_eq!(seen.len(), OF_A_HUNDRED.len());
    }
}
