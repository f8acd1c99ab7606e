-- See 0185. The unique index on valid tickets guards a sale.
alter table tickets
    drop constraint tickets_status_known,
    drop constraint tickets_voided_when_void;

insert into schema_compatibility (migration, oldest_level, oldest_release) values (191, 111, '0.1.0');
