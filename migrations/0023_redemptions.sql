-- Tickets that were scanned at the entrance. Codes are derived from tickets and are stored no more.

alter table api_keys validate constraint api_keys_role_known;

-- Tickets of earlier releases keep the code that they had; it is read no more, and a later migration drops the column.
alter table tickets alter column code set default '';
comment on column tickets.code is 'Not used any more: the code is derived from the ticket and signed.';

create table redemptions (
    id uuid constraint redemptions_pkey primary key,
    ticket_id uuid not null,
    reservation_id uuid not null,
    performance_id uuid not null,
    seat integer not null,
    gate text not null,
    scanned_at timestamptz not null,
    recorded_at timestamptz not null default clock_timestamp(),
    api_key_id uuid not null,
    status text not null constraint redemptions_status_known check (status in ('valid', 'duplicate', 'undone')),
    undone_at timestamptz,
    undone_by text,
    reason text,
    constraint redemptions_undone_with_reason
        check ((status = 'undone') = (undone_at is not null and undone_by is not null and reason is not null))
);
comment on table redemptions is 'Scans by which a ticket admitted. A ticket has at most one valid one: the earliest by the time of the scan.';
comment on column redemptions.scanned_at is 'When the code was scanned: earlier than recorded_at for a scanner that was offline.';
comment on column redemptions.status is 'duplicate: another scan of the ticket was earlier, and both admitted. undone: taken back by support, with who and why.';
comment on column redemptions.api_key_id is 'The key of the scanner.';
create unique index redemptions_one_valid on redemptions (ticket_id) where status = 'valid';
create unique index redemptions_once_per_scan on redemptions (ticket_id, gate, scanned_at);
create index redemptions_of_performance on redemptions (performance_id, gate) where status = 'valid';

insert into schema_compatibility (migration, oldest_level, oldest_release) values (23, 21, '0.1.0');
