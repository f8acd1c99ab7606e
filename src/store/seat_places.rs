//! Where the seats of a date are.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Result;

/// The places of the seats `from..=to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedRange {
    pub from: i32,
    pub to: i32,
    /// Of each of them.
    pub rank: i32,
    pub row_label: Option<String>,
    /// Of the first seat; the others count on.
    pub first_label: Option<i32>,
    /// Of the first seat.
    pub x: Option<i32>,
    pub y: Option<i32>,
    /// How far each seat is from the one before.
    pub x_step: i32,
    pub accessible: bool,
    pub companion: bool,
}

/// Adds the places of a date's seats. There are either none, or those of all seats.
pub async fn insert(conn: &mut PgConnection, performance_id: Uuid, ranges: &[PlacedRange]) -> Result<()> {
    if ranges.is_empty() {
        return Ok(());
    }
    let from: Vec<i32> = ranges.iter().map(|range| range.from).collect();
    let to: Vec<i32> = ranges.iter().map(|range| range.to).collect();
    let ranks: Vec<i32> = ranges.iter().map(|range| range.rank).collect();
    let rows: Vec<Option<String>> = ranges.iter().map(|range| range.row_label.clone()).collect();
    let labels: Vec<Option<i32>> = ranges.iter().map(|range| range.first_label).collect();
    let xs: Vec<Option<i32>> = ranges.iter().map(|range| range.x).collect();
    let ys: Vec<Option<i32>> = ranges.iter().map(|range| range.y).collect();
    let steps: Vec<i32> = ranges.iter().map(|range| range.x_step).collect();
    let accessible: Vec<bool> = ranges.iter().map(|range| range.accessible).collect();
    let companion: Vec<bool> = ranges.iter().map(|range| range.companion).collect();
    sqlx::query!(
        r#"
        insert into seat_places (performance_id, number, rank, row_label, label, x, y, accessible, companion)
        select $1, number, rank, row_label, (label + number - low)::text, x + (number - low) * step, y, accessible, companion
        from unnest($2::integer[], $3::integer[], $4::integer[], $5::text[], $6::integer[], $7::integer[], $8::integer[],
                    $9::integer[], $10::boolean[], $11::boolean[])
            as range (low, high, rank, row_label, label, x, y, step, accessible, companion)
        cross join generate_series(low, high) as number
        on conflict do nothing
        "#,
        performance_id,
        &from,
        &to,
        &ranks,
        &rows as &[Option<String>],
        &labels as &[Option<i32>],
        &xs as &[Option<i32>],
        &ys as &[Option<i32>],
        &steps,
        &accessible,
        &companion,
    )
    .execute(conn)
    .await?;
    Ok(())
}
