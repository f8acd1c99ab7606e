// Package worker serves steps of Box Office sagas from a service with a database of its own. The contract is
// docs/workers.md.
package worker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
)

const (
	stream            = "STEPS"
	ackWait           = 3 * time.Second
	maxDeliver        = 20
	maxAckPending     = 4096
	atOnce            = 8 // commands of one kind under way at once, each in a transaction of its own
	fetchTimeout      = 5 * time.Second
	progressInterval  = time.Second      // well within the wait for an acknowledgement
	publishTimeout    = 12 * time.Second // for all tries; a leader election takes 8 s
	publishAckTimeout = 5 * time.Second  // for one try
	completeTimeout   = 4 * time.Second  // the engine wants an answer within 5 s
	pingTimeout       = 5 * time.Second
	endTimeout        = 2 * time.Second
	putOffMost        = 10 // deliveries after which a command is left to the sweeper while the database is away
	longestPause      = time.Minute
	reopenPause       = 250 * time.Millisecond
	purgeInterval     = 10 * time.Minute
	purgeBatch        = 5000
)

// Handler does or undoes a step. What it writes through tx stays only if it returns Done; it does not commit. An error is
// answered failed with the code handler_failed. When ctx ends, the transaction is over and the answer is unknown.
type Handler func(ctx context.Context, tx *sql.Tx, command *Command) (Outcome, error)

// Worker is a service, its database, and a handler for each of its commands. Set its fields before Run.
type Worker struct {
	Service         string
	Database        *Database
	Keep            time.Duration // how long outcomes are kept: 30 days
	LongestDeadline time.Duration // that of the workflows whose steps it serves: a day
	Limit           time.Duration // how long one handler may take, a do at most until its deadline: 30 seconds
	Domain          string        // of JetStream, if it belongs to another account
	Log             *slog.Logger

	instance string
	handlers map[string]Handler
}

// New makes a worker without steps.
func New(service string, database *Database) *Worker {
	host, _ := os.Hostname()
	return &Worker{
		Service: service, Database: database, Log: slog.Default(), instance: fmt.Sprintf("%s:%d", host, os.Getpid()),
		Keep: 30 * 24 * time.Hour, LongestDeadline: 24 * time.Hour, Limit: 30 * time.Second, handlers: map[string]Handler{},
	}
}

// Step serves a step by the names of its commands. A step without an undo has an empty name there.
func (w *Worker) Step(do string, doHandler Handler, undo string, undoHandler Handler) {
	w.handlers[do] = doHandler
	if undo != "" {
		w.handlers[undo] = undoHandler
	}
}

// Run serves until ctx ends, then finishes the commands in hand and returns nil. It returns an error if it cannot start.
func (w *Worker) Run(ctx context.Context, client *nats.Conn) error {
	js, err := jetstream.NewWithDomain(client, w.Domain)
	if w.Domain == "" {
		js, err = jetstream.New(client)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(w.checkCommands(), w.checkKeep(ctx, js)); err != nil {
		return err
	}
	if err := w.Database.prepare(ctx); err != nil {
		return fmt.Errorf("the table of outcomes cannot be made: %w", err)
	}
	announced, err := w.announce(client)
	if err != nil {
		return err
	}
	var loops sync.WaitGroup
	for command, handler := range w.handlers {
		loops.Go(func() { w.serve(ctx, js, command, handler) })
	}
	loops.Go(func() { w.purge(ctx) })
	<-ctx.Done()
	_ = announced.Stop()
	loops.Wait()
	return client.FlushTimeout(publishAckTimeout) // the last acknowledgements
}

func (w *Worker) checkCommands() error {
	for command, handler := range w.handlers {
		if service, _, _ := strings.Cut(command, "."); service != w.Service || handler == nil {
			return fmt.Errorf("%s needs a handler and a name that begins with %s.", command, w.Service)
		}
	}
	return nil
}

// checkKeep makes sure that no row is deleted while an old command may still come.
func (w *Worker) checkKeep(ctx context.Context, js jetstream.JetStream) error {
	found, err := js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("the stream %s cannot be looked at: %w", stream, err)
	}
	age := found.CachedInfo().Config.MaxAge
	if age == 0 {
		return fmt.Errorf("the stream %s keeps messages for ever, so no outcome may be deleted; give it a max_age", stream)
	}
	if w.Keep <= w.LongestDeadline+age {
		return fmt.Errorf("outcomes are kept for %v, but a command may come for %v (the longest deadline) and then %v "+
			"(the age of the stream %s); keep them for longer", w.Keep, w.LongestDeadline, age, stream)
	}
	return nil
}

// ---- presence and completion by hand

func (w *Worker) announce(client *nats.Conn) (micro.Service, error) {
	commands := strings.Join(slices.Sorted(maps.Keys(w.handlers)), ",")
	metadata := map[string]string{"commands": commands, "instance": w.instance}
	service, err := micro.AddService(client, micro.Config{Name: w.Service, Version: "0.1.0", Metadata: metadata})
	if err != nil {
		return nil, err
	}
	subject := micro.WithEndpointSubject("fences." + w.Service + ".complete")
	return service, service.AddEndpoint("complete", micro.HandlerFunc(w.complete), subject)
}

func (w *Worker) complete(request micro.Request) {
	command, output, err := readCompletion(nats.Header(request.Headers()), request.Data())
	if err != nil {
		_ = request.Error("400", err.Error(), nil)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
	defer cancel()
	var answer completed
	err = w.Database.transact(ctx, func(tx *sql.Tx) error {
		k, _, err := w.Database.lock(ctx, tx, command, w.Keep)
		if err != nil {
			return err
		}
		var becomes *known
		if becomes, answer = complete(k, command.Visit, output); becomes == nil {
			return nil
		}
		w.Log.Info("a step was completed by hand", "saga", command.Saga, "step", command.Step)
		return w.Database.save(ctx, tx, command, *becomes)
	})
	if err != nil {
		w.Log.Warn("a step was not completed by hand", "saga", command.Saga, "step", command.Step, "error", err)
		_ = request.Error("503", "its database cannot be used now", nil)
		return
	}
	_ = request.RespondJSON(answer)
}

// ---- commands

// errAway says that nothing is known of the step: the database cannot be used now.
type errAway struct{ error }

// serve takes one command's messages. Each delivery counts: while the database is away, it asks for none.
func (w *Worker) serve(ctx context.Context, js jetstream.JetStream, command string, handler Handler) {
	var inHand sync.WaitGroup
	defer inHand.Wait()
	for ctx.Err() == nil {
		w.serveUntilAway(ctx, js, command, handler, &inHand)
		w.waitForDatabase(ctx)
	}
}

// serveUntilAway takes messages, at most atOnce at a time, until ctx ends or the database is away.
func (w *Worker) serveUntilAway(ctx context.Context, js jetstream.JetStream, command string, handler Handler, inHand *sync.WaitGroup) {
	answering, away := context.WithCancel(ctx)
	defer away()
	free := make(chan struct{}, atOnce)
	var consumer jetstream.Consumer
	for {
		select {
		case <-answering.Done():
			return
		case free <- struct{}{}:
		}
		message, err := w.next(answering, js, command, &consumer)
		if message == nil {
			<-free
			if err != nil && answering.Err() == nil {
				w.Log.Warn("receiving again after an interruption", "command", command, "error", err)
				consumer = nil
				sleep(ctx, reopenPause)
			}
			continue
		}
		inHand.Go(func() {
			defer func() { <-free }()
			// What is in hand is finished after the stop, too.
			if errors.As(w.take(context.WithoutCancel(ctx), js, handler, message), new(errAway)) {
				away()
			}
		})
	}
}

// next waits for one message. A worker may have no right to make the consumer: the engine does, once the worker has
// announced the command.
func (w *Worker) next(ctx context.Context, js jetstream.JetStream, command string, consumer *jetstream.Consumer) (jetstream.Msg, error) {
	begin := time.Now()
	fetch, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	if *consumer == nil {
		name := strings.ReplaceAll(command, ".", "-")
		found, err := js.Consumer(fetch, stream, name)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			found, err = js.CreateConsumer(fetch, stream, jetstream.ConsumerConfig{
				Durable: name, FilterSubject: "steps." + command, AckPolicy: jetstream.AckExplicitPolicy,
				AckWait: ackWait, MaxDeliver: maxDeliver, MaxAckPending: maxAckPending,
			})
		}
		if err != nil {
			return nil, err
		}
		*consumer = found
		return nil, nil
	}
	message, err := (*consumer).Next(jetstream.FetchContext(fetch))
	if err != nil && time.Since(begin) > fetchTimeout/2 {
		return nil, nil // there was nothing; an early end means that the consumer is not there, or that NATS is away
	}
	return message, err
}

func (w *Worker) waitForDatabase(ctx context.Context) {
	for pause := 50 * time.Millisecond; ctx.Err() == nil; pause = min(time.Second, 2*pause) {
		ping, cancel := context.WithTimeout(ctx, pingTimeout)
		err := w.Database.ping(ping)
		cancel()
		if err == nil {
			return
		}
		w.Log.Warn("the service's database does not answer", "error", err)
		sleep(ctx, pause)
	}
}

// take handles one message. Whatever goes wrong, it comes again.
func (w *Worker) take(ctx context.Context, js jetstream.JetStream, handler Handler, message jetstream.Msg) error {
	delivered := uint64(1)
	if metadata, err := message.Metadata(); err == nil {
		delivered = metadata.NumDelivered
	}
	stop := w.reportProgress(message)
	err := w.try(ctx, js, handler, message)
	stop()
	if err == nil {
		return message.Ack()
	}
	w.Log.Warn("a command was not handled", "subject", message.Subject(), "delivered", delivered, "error", err)
	if errors.As(err, new(errAway)) && delivered >= putOffMost {
		_ = message.Ack() // the saga's row still asks for it; the sweeper sends it anew
	} else {
		_ = message.NakWithDelay(pauseAfter(delivered))
	}
	return err
}

func (w *Worker) try(ctx context.Context, js jetstream.JetStream, handler Handler, message jetstream.Msg) error {
	command, err := readCommand(message.Subject(), message.Headers(), message.Data())
	if err != nil {
		return err
	}
	outcome, err := w.answer(ctx, command, handler)
	if err != nil || outcome == nil {
		return err
	}
	reply, err := writeReply(command, *outcome, w.instance)
	if err != nil {
		return err
	}
	return publish(ctx, js, reply)
}

// answer gives the answer to a command, committed with its effect; nil if the command belongs to the past.
func (w *Worker) answer(ctx context.Context, command *Command, handler Handler) (outcome *Outcome, err error) {
	limit := timeLimit(w.Limit, command, time.Now())
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var panicked error
	err = w.Database.transact(limited, func(tx *sql.Tx) error {
		k, now, err := w.Database.lock(limited, tx, command, w.Keep)
		if err != nil {
			return err
		}
		decided := decide(k, command, now)
		if decided.ignore || decided.reply != nil {
			outcome = decided.reply
			return nil
		}
		asked := *command
		asked.Done = decided.done
		ran, err := w.act(limited, tx, &asked, handler)
		if errors.As(err, new(errPanicked)) {
			panicked = err
		}
		if err != nil {
			return err
		}
		outcome = &ran
		return w.Database.save(limited, tx, command, after(k, command, ran))
	})
	switch {
	case err == nil:
		return outcome, nil
	case panicked != nil:
		return nil, panicked
	case limited.Err() != nil:
		w.Log.Error("a handler was cut off", "saga", command.Saga, "step", command.Step, "limit", limit)
		cut := Unknown(fmt.Sprintf("the function did not end within %d ms", limit.Milliseconds()))
		return &cut, nil
	case isFault(err):
		return nil, err
	}
	return nil, errAway{err}
}

type errPanicked struct{ error }

// act runs the handler; its writes stay only if it returns Done. A handler that does not end with ctx is left behind: its
// transaction is over.
func (w *Worker) act(ctx context.Context, tx *sql.Tx, command *Command, handler Handler) (Outcome, error) {
	if _, err := tx.ExecContext(ctx, "savepoint effect"); err != nil {
		return Outcome{}, err
	}
	type result struct {
		outcome Outcome
		err     error
	}
	handled := make(chan result, 1)
	go func() {
		defer func() {
			if reason := recover(); reason != nil {
				handled <- result{err: errPanicked{fmt.Errorf("the handler panicked: %v\n%s", reason, debug.Stack())}}
			}
		}()
		outcome, err := handler(ctx, tx, command)
		handled <- result{outcome, err}
	}()
	var ran result
	select {
	case ran = <-handled:
	case <-ctx.Done():
		return Outcome{}, ctx.Err()
	}
	outcome, err := ran.outcome, ran.err
	if err == nil {
		err = outcome.check()
	}
	switch {
	case err != nil && (ctx.Err() != nil || isAway(err) || errors.As(err, new(errPanicked))):
		return Outcome{}, err
	case err != nil:
		w.Log.Error("a handler failed", "saga", command.Saga, "step", command.Step, "error", err)
		outcome = Failed("handler_failed")
	case outcome.Kind == "done" && isTooLarge(command.Context, outcome.Output):
		w.Log.Error("the output of a handler is too large", "saga", command.Saga, "step", command.Step)
		outcome = Failed("output_too_large")
	}
	end := "rollback to savepoint effect"
	if outcome.Kind == "done" {
		end = "release savepoint effect"
	}
	_, err = tx.ExecContext(ctx, end)
	return outcome, err
}

func (w *Worker) purge(ctx context.Context) {
	for ctx.Err() == nil {
		deleted, err := w.Database.purge(ctx, purgeBatch)
		if err != nil && ctx.Err() == nil {
			w.Log.Warn("old outcomes were not deleted", "error", err)
		}
		if deleted < purgeBatch {
			sleep(ctx, purgeInterval)
		}
	}
}

// reportProgress keeps the server from delivering the message again, until the function that it returns is called.
func (w *Worker) reportProgress(message jetstream.Msg) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var reporting sync.WaitGroup
	reporting.Go(func() {
		for sleep(ctx, progressInterval); ctx.Err() == nil; sleep(ctx, progressInterval) {
			_ = message.InProgress()
		}
	})
	return func() {
		cancel()
		reporting.Wait()
	}
}

// publish returns once JetStream has the reply. It may be stored twice: the engine is fenced, too.
func publish(ctx context.Context, js jetstream.JetStream, reply *nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	for pause := 50 * time.Millisecond; ; pause = min(time.Second, 2*pause) {
		try, cancel := context.WithTimeout(ctx, publishAckTimeout)
		_, err := js.PublishMsg(try, reply, jetstream.WithRetryAttempts(0))
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		sleep(ctx, pause)
	}
}

// pauseAfter is the pause before a message comes again. It doubles with every delivery, from a quarter of a second to a minute.
func pauseAfter(delivered uint64) time.Duration {
	return min(longestPause, 250*time.Millisecond<<(min(max(delivered, 1), 20)-1))
}

func sleep(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}
