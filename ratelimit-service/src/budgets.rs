//! Budgets as alerts look at them: each by its own amount, whichever of a tenant's is its limit.

use std::collections::HashMap;
use std::num::NonZeroU64;

use tollgate_domain::CounterId;

/// A budget of a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// Its record's.
    pub id: String,
    /// How much in a month, in 1e-9 US dollars.
    pub amount_nanousd: NonZeroU64,
    /// At which shares of it that is told, in percent, rising; none at all: at those that are configured.
    pub thresholds: Vec<u16>,
    /// What counts what is spent of it: the same for all budgets of the same calls.
    pub counter: CounterId,
}

/// The budgets of all tenants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Budgets(HashMap<String, Vec<Marked>>);

impl Budgets {
    /// A tenant has this one too.
    pub fn insert(&mut self, tenant: String, budget: Marked) {
        self.0.entry(tenant).or_default().push(budget);
    }

    /// A tenant's.
    pub fn of(&self, tenant: &str) -> &[Marked] {
        self.0.get(tenant).map_or(&[], Vec::as_slice)
    }

    /// Whether one has thresholds of its own.
    pub fn have_thresholds(&self) -> bool {
        self.0.values().flatten().any(|budget| !budget.thresholds.is_empty())
    }

    /// The tenants that have other budgets than `before`; not those that have none any more.
    pub fn changed_since<'b>(&'b self, before: &'b Budgets) -> impl Iterator<Item = &'b str> {
        self.0.iter().filter(|(tenant, own)| before.of(tenant) != own.as_slice()).map(|(tenant, _)| tenant.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_told_whose_budgets_changed() {
        let marked = |amount: u64, thresholds: &[u16]| Marked {
            id: "b".to_owned(),
            amount_nanousd: NonZeroU64::new(amount).unwrap(),
            thresholds: thresholds.to_vec(),
            counter: CounterId(7),
        };
        let budgets = |of: &[(&str, u64, &[u16])]| {
            let mut budgets = Budgets::default();
            of.iter().for_each(|(tenant, amount, own)| budgets.insert((*tenant).to_owned(), marked(*amount, own)));
            budgets
        };
        let before = budgets(&[("same", 1, &[50]), ("raised", 1, &[]), ("gone", 1, &[]), ("more", 1, &[])]);
        let now =
            budgets(&[("same", 1, &[50]), ("raised", 2, &[]), ("more", 1, &[]), ("more", 9, &[]), ("new", 1, &[])]);
        let mut changed: Vec<_> = now.changed_since(&before).collect();
        changed.sort_unstable();
        assert_eq!(changed, ["more", "new", "raised"]);
        assert!(before.have_thresholds() && !budgets(&[("a", 1, &[])]).have_thresholds());
        assert_eq!((now.of("more").len(), now.of("nobody").len()), (2, 0));
    }
}
