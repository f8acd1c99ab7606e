// Printer is the worker of the protocol test (sdk/conformance): it prints badges by what the command's context says in `how`.
//
// NATS_URL and DATABASE_URL (postgres://… or sqlite:FILE) say where; LIMIT_MS bounds a handler.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	worker "github.com/boxoffice-rs/boxoffice/sdk/go"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/nats-io/nats.go"
)

// tries counts how often each saga was printed or shredded by this process.
type tries struct {
	sync.Mutex
	counts map[string]int
}

func (t *tries) isFirst(what string) bool {
	t.Lock()
	defer t.Unlock()
	t.counts[what]++
	return t.counts[what] == 1
}

var printed, shredded = tries{counts: map[string]int{}}, tries{counts: map[string]int{}}

const insert = "insert into badges (saga) values ($1)"

func how(command *worker.Command) string {
	var context struct{ How string }
	if err := command.Decode(&context); err != nil {
		panic(err)
	}
	return context.How
}

func printBadge(ctx context.Context, tx *sql.Tx, command *worker.Command) (worker.Outcome, error) {
	first := printed.isFirst(command.Saga)
	if _, err := tx.ExecContext(ctx, insert, command.Saga); err != nil {
		return worker.Outcome{}, err
	}
	output := map[string]any{"badge": command.Saga, "seen": map[string]any{
		"step": command.Step, "direction": command.Direction, "visit": command.Visit, "workflow": command.Workflow,
		"deadline": command.Deadline != nil,
	}}
	switch how := how(command); {
	case how == "refuse":
		return worker.Rejected("no_paper", map[string]string{"printer": "hall 2"}), nil
	case how == "fail" && first:
		return worker.Failed("offline"), nil
	case how == "doubt" && first:
		return worker.Unknown("it hums"), nil
	case how == "break" && first:
		_, err := tx.ExecContext(ctx, insert, nil)
		return worker.Done(output), err
	case how == "throw" && first:
		return worker.Outcome{}, errors.New("the printer is on fire")
	case how == "panic" && first:
		panic("the printer is on fire")
	case how == "hang" && first:
		time.Sleep(time.Minute) // it does not look at ctx
	case how == "hang in the database" && first:
		_, err := tx.Exec("select pg_sleep(60)") // neither does this
		return worker.Done(output), err
	case how == "slow":
		time.Sleep(4500 * time.Millisecond)
	case how == "slower":
		time.Sleep(7 * time.Second)
	case how == "large":
		output["badge"] = strings.Repeat("x", 300_000)
	case how == "nul":
		output["badge"] = "\x00"
	}
	return worker.Done(output), nil
}

func shredBadge(ctx context.Context, tx *sql.Tx, command *worker.Command) (worker.Outcome, error) {
	result, err := tx.ExecContext(ctx, "delete from badges where saga = $1", command.Saga)
	if err != nil {
		return worker.Outcome{}, err
	}
	if how(command) == "fail to undo" && shredded.isFirst(command.Saga) {
		return worker.Failed("jammed"), nil
	}
	gone, err := result.RowsAffected()
	return worker.Done(map[string]any{"gone": gone, "known": command.Done != nil, "reason": command.Reason}), err
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var database *worker.Database
	source, isSQLite := strings.CutPrefix(os.Getenv("DATABASE_URL"), "sqlite:")
	driver, make := "pgx", worker.Postgres
	if isSQLite {
		driver, make = "sqlite", worker.SQLite
		source = "file:" + source + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		return err
	}
	database = make(db)
	if _, err := db.ExecContext(ctx, "create table if not exists badges (saga text not null)"); err != nil {
		return err
	}
	client, err := nats.Connect(os.Getenv("NATS_URL"), nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	printer := worker.New("printer", database)
	printer.Domain = os.Getenv("NATS_DOMAIN")
	if limit, err := strconv.Atoi(os.Getenv("LIMIT_MS")); err == nil {
		printer.Limit = time.Duration(limit) * time.Millisecond
	}
	printer.Step("printer.print", printBadge, "printer.shred", shredBadge)
	if err := printer.Run(ctx, client); err != nil {
		return err
	}
	fmt.Println("stopped")
	return nil
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
