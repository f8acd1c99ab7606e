-- Postgres parses each check of a table anew for every statement that writes the table: an eighth of its processor time. One check
-- stays on each table that every booking writes and that needs one. The types of the program keep the other rules, and the
-- audit finds a row that breaks one (`row_rules`).

-- The range of due_at is in the check that stays: a time that the program cannot read would stop the sweeper. As before, rows that
-- exist are not checked for it.
alter table sagas
    drop constraint sagas_status_known,
    drop constraint sagas_direction_known,
    drop constraint sagas_visit_positive,
    drop constraint sagas_attempt_counts,
    drop constraint sagas_send_counts,
    drop constraint sagas_finished_when_ended,
    drop constraint sagas_stuck_since_when_stuck,
    drop constraint sagas_times_in_range,
    drop constraint sagas_never_sleep_without_alarm,
    add constraint sagas_never_sleep_without_alarm check (
        case when due_at is null then paused or status in ('completed', 'compensated', 'stuck', 'abandoned')
        else due_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00' end) not valid;

insert into schema_compatibility (migration, oldest_level, oldest_release) values (185, 111, '0.1.0');
