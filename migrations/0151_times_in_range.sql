-- Times that operators and other programs write are finite and can be read: an infinite one, or one beyond the year 262142, stops
-- the task that reads it. Existing rows are not checked, so the locks are short.

alter table performances add constraint performances_times_in_range check (
    starts_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
    and sale_opens_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
    and sale_closes_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00') not valid;

alter table queue_settings add constraint queue_settings_times_in_range check (
    pre_queue_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
    and opens_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00') not valid;

alter table queue_journal add constraint queue_journal_times_in_range check (
    issued_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
    and grace_until between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
    and activated_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
    and expires_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
    and ended_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00') not valid;

alter table sagas add constraint sagas_times_in_range check (
    due_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00') not valid;

alter table reservations add constraint reservations_times_in_range check (
    expires_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
    and claimable_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00') not valid;
