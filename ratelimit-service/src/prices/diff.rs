//! What an imported table would change.

use tollgate_domain::{Day, Price, PriceTable, TokenClass};

use super::row::{COLUMNS, LONG, cell};

/// Columns that say what a price is for, and whence it comes, and not what anything costs.
const NOT_COSTS: [&str; 5] = ["provider", "model", "from", "source", "seen"];

/// Of an imported table, what is not in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diff<'a> {
    /// Prices of models that have none, and versions from later days that are not known.
    pub added: Vec<&'a Price>,
    /// Prices of models that cost something else now.
    pub changed: Vec<Changed<'a>>,
    /// Prices in force, of the providers that the imported table knows, for which it has none.
    pub removed: Vec<&'a Price>,
}

impl Diff<'_> {
    /// Whether both say the same.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// A price that is not the one in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed<'a> {
    /// In force. It may be for more models.
    pub before: &'a Price,
    /// Imported.
    pub after: &'a Price,
    /// One at least, each written otherwise in both.
    pub costs: Vec<Change>,
}

/// A cost that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its [column](COLUMNS): a class of tokens, such as `cache_read`, with `long_` before it where the prompt is long.
    pub column: &'static str,
    /// US dollars, or tokens for `long_above_tokens`; `None` where none was given.
    pub from: Option<String>,
    /// As `from`.
    pub to: Option<String>,
}

/// Compares with what is in force on `day`. A model is looked up by its name, as a call's would be, and a pattern as if
/// it were a name.
pub fn diff<'a>(in_force: &'a PriceTable, imported: &'a PriceTable, day: Day) -> Diff<'a> {
    let mut diff = Diff::default();
    let mut met: Vec<&Price> = Vec::new();
    for after in imported.versions() {
        let model = after.model().to_string();
        if after.from() > day {
            let is_known = |before: &Price| before.is_alike(after) && before.from() == after.from();
            if !in_force.versions().iter().any(is_known) {
                diff.added.push(after);
            }
        } else if holds(imported, after, day) {
            let Some(before) = in_force.at(after.provider(), Some(&model), day) else {
                diff.added.push(after);
                continue;
            };
            met.push(before);
            let costs = changes(before, after);
            if !costs.is_empty() {
                diff.changed.push(Changed { before, after, costs });
            }
        }
    }
    let is_theirs = |price: &Price| imported.versions().iter().any(|other| other.provider() == price.provider());
    let is_met = |price: &Price| met.iter().any(|met| std::ptr::eq(*met, price));
    let removed = in_force.versions().iter().filter(|price| holds(in_force, price, day));
    diff.removed = removed.filter(|price| is_theirs(price) && !is_met(price)).collect();
    diff
}

/// Whether it is what `table` says on `day` of the models that it names.
fn holds(table: &PriceTable, price: &Price, day: Day) -> bool {
    let found = table.at(price.provider(), Some(&price.model().to_string()), day);
    found.is_some_and(|found| std::ptr::eq(found, price))
}

/// What is written otherwise, and costs otherwise: a class that is given the price of plain tokens costs what it did.
fn changes(before: &Price, after: &Price) -> Vec<Change> {
    let given = |text: String| (!text.is_empty()).then_some(text);
    let costs_otherwise = |column: &str| match column.strip_prefix(LONG).unwrap_or(column) {
        "per_request" | "per_image" => true,
        "above_tokens" => has_long(before) || has_long(after),
        class => {
            let prompt_tokens = if column.starts_with(LONG) { u64::MAX } else { 0 };
            let class = TokenClass::ALL.into_iter().find(|known| known.as_str() == class);
            let unit = |price: &Price| class.map(|class| price.unit_picousd(class, prompt_tokens));
            unit(before) != unit(after)
        }
    };
    let costs = COLUMNS.into_iter().filter(|column| !NOT_COSTS.contains(column) && costs_otherwise(column));
    let changes =
        costs.map(|column| Change { column, from: given(cell(before, column)), to: given(cell(after, column)) });
    changes.filter(|change| change.from != change.to).collect()
}

/// Whether long prompts cost otherwise.
fn has_long(price: &Price) -> bool {
    TokenClass::ALL.into_iter().any(|class| price.unit_picousd(class, 0) != price.unit_picousd(class, u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prices::row;

    fn table(rows: &str) -> PriceTable {
        let header = "provider,model,from,input,cache_read,output,long_above_tokens,long_input\n";
        PriceTable::new(row::from_csv(&format!("{header}{rows}")).unwrap())
    }

    #[test]
    fn what_is_added_changed_and_removed_is_told() {
        let in_force = table(
            "openai,gpt-4o,,2.5,1.25,10,,\nopenai,gpt-4o-20*,,2.5,1.25,10,,\nopenai,gpt-4,,30,,60,,\n\
             anthropic,claude,,3,,15,,\nopenai,old,,9,,9,,\nopenai,old,2026-01-01,8,,8,,\n",
        );
        let imported = table(
            "openai,gpt-4o,2026-11-26,2.5,,10,200000,5\nopenai,gpt-4o-2024-08-06,,2.5,1.25,10,,\nopenai,gpt-5,,1,,2,,\n\
             openai,old,,9,,9,,\nopenai,gpt-4o,2027-01-01,1,,1,,\n",
        );
        let day = crate::period::day("2026-11-26").unwrap();
        let diff = diff(&in_force, &imported, day);
        let versions = |prices: &[&Price]| prices.iter().map(|price| price.version()).collect::<Vec<_>>();
        assert_eq!(versions(&diff.added), ["gpt-5@1970-01-01", "gpt-4o@2027-01-01"]);
        assert_eq!(versions(&diff.removed), ["gpt-4@1970-01-01"], "claude is of a provider that is not imported");
        let change = |column, from: Option<&str>, to: Option<&str>| Change {
            column,
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
        };
        let changed: Vec<_> = diff.changed.iter().map(|one| (one.before.version(), one.costs.clone())).collect();
        let costs = vec![
            change("cache_read", Some("1.25"), None),
            change("long_above_tokens", None, Some("200000")),
            change("long_input", None, Some("5")),
        ];
        let old = vec![change("input", Some("8"), Some("9")), change("output", Some("8"), Some("9"))];
        assert_eq!(changed, [("gpt-4o@1970-01-01".to_owned(), costs), ("old@2026-01-01".to_owned(), old)]);
        assert!(super::diff(&in_force, &in_force, day).is_empty());
    }

    #[test]
    fn what_costs_the_same_is_no_change_however_it_is_written() {
        let in_force = table("openai,embed,,2,,,,\nopenai,chat,,3,3,4,,\nopenai,long,,1,,,10,2\n");
        let same = table("openai,embed,,2,2,0,10,2\nopenai,chat,,3,,4,,\nopenai,long,,1,,,10,2\n");
        assert!(diff(&in_force, &same, Day::EPOCH).is_empty());
        let other = table("openai,embed,,2,,,,\nopenai,chat,,3,3,4,,\nopenai,long,,1,,,20,2\n");
        let diff = diff(&in_force, &other, Day::EPOCH);
        assert_eq!(
            diff.changed.iter().map(|changed| changed.costs[0].column).collect::<Vec<_>>(),
            ["long_above_tokens"]
        );
    }
}
