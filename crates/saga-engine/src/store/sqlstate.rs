//! What an error of the database says about the work that met it. This is the one table that decides.
//!
//! Work is given up, and its saga gets stuck, only for an error that is known to come again for the same work. After every
//! other error the work is tried again, until the deadline of its saga; then the saga is undone.

/// Whether work that met this SQLSTATE fails again whenever it is tried. Codes that are not named here say nothing about
/// the work: a server that is away, busy, full, locked, read-only or broken, a connection that is of no use any more.
pub fn fails_again(sqlstate: &str) -> bool {
    match sqlstate {
        // The role lacks a right. An operator can grant it; the work is good.
        "42501" => false,
        // A table, column, function, type, or the index of an ON CONFLICT is missing, or a column has another type: the
        // schema is that of another release, or the search path is wrong. It is so for all work until it is put right.
        "42P01" | "42703" | "42883" | "42704" | "42P10" | "42804" => false,
        // Behind a pooler, another client has prepared a statement under the same name.
        "42P05" => false,
        // A value cannot be stored or computed (22), a constraint is broken (23), a statement is wrong (42).
        _ => ["22", "23", "42"].contains(&class(sqlstate)),
    }
}

/// Whether this SQLSTATE says that the connection is of no use any more, and so are those that were made before: it leads to a
/// server that is read-only, in recovery, or stopping, or what was prepared on it does not fit the schema any more.
pub fn outdates_connections(sqlstate: &str) -> bool {
    match sqlstate {
        // Read-only: a standby, or a server that was demoted.
        "25006" => true,
        // The server or its administrator ends sessions, a backend crashed, the server starts, the database is gone.
        "57P01" | "57P02" | "57P03" | "57P04" => true,
        // The result of a prepared statement has other columns than before, or the statement is not there.
        "0A000" | "26000" => true,
        _ => class(sqlstate) == "08",
    }
}

/// Whether the error says that a wait was ended by its bound, on either side: to try again at once would wait again.
pub fn ends_a_wait(sqlstate: &str) -> bool {
    // Cancelled or timed out; a lock that was not got in time.
    matches!(sqlstate, "57014" | "55P03")
}

fn class(sqlstate: &str) -> &str {
    sqlstate.get(..2).unwrap_or_default()
}
