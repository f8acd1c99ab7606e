-- One row that is written to find out whether this database can be written: a server that was demoted, is in recovery,
-- read-only or out of space still answers reads. No release before this one reads or writes the table.
create table write_probe (
    only_row   boolean primary key default true check (only_row),
    written_at timestamptz not null
);
comment on table write_probe is 'One row, written by health checks to find out whether the database can be written.';
