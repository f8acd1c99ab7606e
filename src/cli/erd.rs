//! `erd`: the tables and how they refer to each other, drawn from a migrated database. The documentation is made
//! with it.

use std::fmt::Write;

use serde_json::json;

use super::{Context, Ending};
use crate::store::schema::{self, Column, Reference, Table};

pub(super) async fn run(context: &Context) -> anyhow::Result<Ending> {
    let pool = context.database().await?;
    let tables = schema::tables(&pool).await?;
    let columns = schema::columns(&pool).await?;
    let references = schema::references(&pool).await?;
    let drawing = mermaid(&tables, &columns, &references);
    let named: Vec<_> =
        tables.iter().map(|table| json!({ "name": table.name, "comment": table.comment })).collect();
    context.output.answer(&json!({ "mermaid": drawing, "tables": named }), |_| drawing.clone())?;
    Ok(Ending::Good)
}

fn mermaid(tables: &[Table], columns: &[Column], references: &[Reference]) -> String {
    let mut drawing = String::from("erDiagram\n");
    // Writing to a string cannot fail.
    let mut line = |text: &str| {
        let _written = writeln!(drawing, "    {text}");
    };
    for reference in references {
        line(&relation(reference));
    }
    for table in tables {
        line(&format!("{} {{", table.name));
        for column in columns.iter().filter(|column| column.table == table.name) {
            line(&format!("    {}", attribute(column, references)));
        }
        line("}");
    }
    drawing
}

fn relation(reference: &Reference) -> String {
    let parent = if reference.optional { "|o" } else { "||" };
    let child = if reference.unique { "o|" } else { "o{" };
    format!("{} {parent}--{child} {} : \"{}\"", reference.parent, reference.child, reference.columns)
}

fn attribute(column: &Column, references: &[Reference]) -> String {
    let refers = |reference: &&Reference| {
        reference.child == column.table && reference.columns.split(", ").any(|name| name == column.name)
    };
    let keys = match (column.primary, references.iter().any(|reference| refers(&reference))) {
        (true, true) => " PK, FK",
        (true, false) => " PK",
        (false, true) => " FK",
        (false, false) => "",
    };
    let optional = if column.required { "" } else { " \"may be null\"" };
    format!("{} {}{keys}{optional}", column.kind, column.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(unique: bool, optional: bool) -> Reference {
        let (child, parent) = ("tickets".to_owned(), "reservations".to_owned());
        Reference { child, parent, columns: "reservation_id".to_owned(), unique, optional }
    }

    #[test]
    fn references_show_their_cardinality() {
        assert_eq!(relation(&reference(false, false)), r#"reservations ||--o{ tickets : "reservation_id""#);
        assert_eq!(relation(&reference(true, true)), r#"reservations |o--o| tickets : "reservation_id""#);
    }

    #[test]
    fn columns_show_references_and_nullability() {
        let column = Column {
            table: "tickets".to_owned(),
            name: "reservation_id".to_owned(),
            kind: "uuid".to_owned(),
            required: false,
            primary: false,
        };
        assert_eq!(attribute(&column, &[reference(false, true)]), r#"uuid reservation_id FK "may be null""#);
        assert_eq!(attribute(&column, &[]), r#"uuid reservation_id "may be null""#);
    }
}
