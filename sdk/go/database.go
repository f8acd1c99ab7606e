package worker

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
)

// Database keeps the fence in the table saga_outcomes, beside the effects of the handlers.
type Database struct {
	db         *sql.DB
	statements statements
	turn       chan struct{} // SQLite has one writer
}

type statements struct {
	table, lock, clock, save, purge, session, endSession string
}

// Postgres keeps the fence in a Postgres, for example opened with the driver "pgx". The table is that of the Rust SDK.
func Postgres(db *sql.DB) *Database {
	return &Database{db: db, statements: statements{
		table: `
			select pg_advisory_xact_lock(7236279817263);
			create table if not exists saga_outcomes (
				saga uuid not null,
				step text not null,
				visit int not null default 0,
				undone int not null default 0,
				outcome jsonb,
				keep_until timestamptz not null,
				primary key (saga, step)
			);
			create index if not exists saga_outcomes_keep_until on saga_outcomes (keep_until)`,
		lock: `
			insert into saga_outcomes as known (saga, step, keep_until)
			values ($1, $2, greatest(clock_timestamp(), $3::timestamptz) + make_interval(secs => $4))
			on conflict (saga, step) do update set keep_until = greatest(known.keep_until, excluded.keep_until)
			returning visit, undone, outcome::text`,
		clock: `select clock_timestamp()`,
		save:  `update saga_outcomes set visit = $3, undone = $4, outcome = $5::text::jsonb where saga = $1 and step = $2`,
		purge: `
			delete from saga_outcomes where (saga, step) in (
				select saga, step from saga_outcomes where keep_until < clock_timestamp() limit $1 for update skip locked)`,
		session:    `select pg_backend_pid()`,
		endSession: `select pg_terminate_backend($1)`,
	}}
}

// SQLite keeps the fence in a SQLite file. One handler runs at a time. Let the data source name set a busy timeout.
func SQLite(db *sql.DB) *Database {
	return &Database{db: db, turn: make(chan struct{}, 1), statements: statements{
		table: `
			create table if not exists saga_outcomes (
				saga text not null,
				step text not null,
				visit integer not null default 0,
				undone integer not null default 0,
				outcome text,
				keep_until integer not null, -- milliseconds since 1970
				primary key (saga, step)
			);
			create index if not exists saga_outcomes_keep_until on saga_outcomes (keep_until)`,
		lock: `
			insert into saga_outcomes (saga, step, keep_until) values (?1, ?2, ?3)
			on conflict (saga, step) do update set keep_until = max(keep_until, excluded.keep_until)
			returning visit, undone, outcome`,
		save:  `update saga_outcomes set visit = ?3, undone = ?4, outcome = ?5 where saga = ?1 and step = ?2`,
		purge: `delete from saga_outcomes where rowid in (select rowid from saga_outcomes where keep_until < ?2 limit ?1)`,
	}}
}

func (d *Database) isPostgres() bool { return d.turn == nil }

func (d *Database) prepare(ctx context.Context) error {
	return d.transact(ctx, func(tx *sql.Tx) error {
		for statement := range strings.SplitSeq(d.statements.table, ";") {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// transact commits what act did, unless it fails or ctx ends. Then nothing of it stays, and no lock.
func (d *Database) transact(ctx context.Context, act func(*sql.Tx) error) error {
	if d.turn != nil {
		select {
		case d.turn <- struct{}{}:
			defer func() { <-d.turn }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if d.isPostgres() {
		var session int64
		if err := tx.QueryRowContext(ctx, d.statements.session).Scan(&session); err != nil {
			return err
		}
		// A statement of the session may still run on the server: without this, its locks would stay until it ends.
		defer func() {
			if ctx.Err() != nil {
				end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
				defer cancel()
				_, _ = d.db.ExecContext(end, d.statements.endSession, session)
			}
		}()
	}
	if err := act(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// lock locks the row of a step as the first statement of a transaction, and reads the clock after it.
func (d *Database) lock(ctx context.Context, tx *sql.Tx, command *Command, keep time.Duration) (known, time.Time, error) {
	var k known
	var outcome sql.NullString
	now, until := time.Now(), time.Now()
	if command.Deadline != nil && command.Deadline.After(until) {
		until = *command.Deadline
	}
	arguments := []any{command.Saga, command.Step, until.Add(keep).UnixMilli()}
	if d.isPostgres() {
		arguments = []any{command.Saga, command.Step, command.Deadline, keep.Seconds()}
	}
	err := tx.QueryRowContext(ctx, d.statements.lock, arguments...).Scan(&k.Visit, &k.Undone, &outcome)
	if err == nil && outcome.Valid {
		err = json.Unmarshal([]byte(outcome.String), &k.Outcome)
	}
	if err == nil && d.isPostgres() {
		err = tx.QueryRowContext(ctx, d.statements.clock).Scan(&now)
	}
	return k, now, err
}

func (d *Database) save(ctx context.Context, tx *sql.Tx, command *Command, k known) error {
	var outcome *string
	if k.Outcome != nil {
		text, err := json.Marshal(k.Outcome)
		if err != nil {
			return err
		}
		outcome = new(string)
		*outcome = string(text)
	}
	_, err := tx.ExecContext(ctx, d.statements.save, command.Saga, command.Step, k.Visit, k.Undone, outcome)
	return err
}

// purge deletes rows that no command can ask for any more.
func (d *Database) purge(ctx context.Context, limit int64) (deleted int64, err error) {
	arguments := []any{limit, time.Now().UnixMilli()}
	if d.isPostgres() {
		arguments = arguments[:1]
	}
	err = d.transact(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, d.statements.purge, arguments...)
		if err == nil {
			deleted, err = result.RowsAffected()
		}
		return err
	})
	return deleted, err
}

// ping takes the write lock of SQLite, too.
func (d *Database) ping(ctx context.Context) error {
	_, err := d.purge(ctx, 0)
	return err
}

// Codes of these classes come again for the same work: a bad value, a broken constraint, a wrong statement. The codes
// named beside them say that the schema or a right is missing, which passes.
var (
	failsAgain = []string{"22", "23", "42"}
	passes     = []string{"42501", "42P01", "42703", "42883", "42704", "42P10", "42804", "42P05"}
	sqliteAway = []string{
		"database is locked", "database table is locked", "disk I/O error", "database or disk is full",
		"attempt to write a readonly database", "unable to open database file", "locking protocol", "out of memory",
		"interrupted", "database disk image is malformed",
	}
)

// isAway reports whether an error of a handler is one of the database and says nothing about the work.
func isAway(err error) bool {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return !isFault(err)
	}
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return true
	}
	return slices.ContainsFunc(sqliteAway, func(text string) bool { return strings.Contains(err.Error(), text) })
}

// isFault reports whether the database refused the work itself.
func isFault(err error) bool {
	var state interface{ SQLState() string }
	if !errors.As(err, &state) || len(state.SQLState()) < 2 {
		return false
	}
	code := state.SQLState()
	return slices.Contains(failsAgain, code[:2]) && !slices.Contains(passes, code)
}
