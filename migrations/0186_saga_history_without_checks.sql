-- See 0185.
alter table saga_history drop constraint saga_history_direction_known;

insert into schema_compatibility (migration, oldest_level, oldest_release) values (186, 111, '0.1.0');
