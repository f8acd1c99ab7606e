-- See 0181. The keys among ledger entries and their announcements stay: few rows have one.
set local lock_timeout = '500ms';

-- In the order in which a payment locks them.
lock table accounts, ledger_entries in access exclusive mode;
alter table ledger_entries drop constraint ledger_entries_account;
create trigger accounts_named after delete on accounts
    referencing old table as gone for each statement execute function refuse_while_named();

insert into schema_compatibility (migration, oldest_level, oldest_release) values (182, 111, '0.1.0');
