-- See 0185. A payment of a wrong amount or without its entry is a finding of the audit.
alter table payments
    drop constraint payments_amount,
    drop constraint payments_status_known,
    drop constraint payments_paid_when_taken;

insert into schema_compatibility (migration, oldest_level, oldest_release) values (190, 111, '0.1.0');
