-- See 0185. ledger_entries_amount stays.
alter table ledger_entries
    drop constraint ledger_entries_kind_known,
    drop constraint ledger_entries_balance,
    drop constraint ledger_entries_refund_names_entry,
    drop constraint ledger_entries_use_names_reservation;

insert into schema_compatibility (migration, oldest_level, oldest_release) values (189, 111, '0.1.0');
