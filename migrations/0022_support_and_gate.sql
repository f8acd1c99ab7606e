-- Keys of the support desk and of scanners at the entrance.

alter table api_keys
    drop constraint api_keys_role_known,
    add constraint api_keys_role_known check (
        role in ('viewer', 'operator', 'admin', 'cashier', 'client', 'support', 'gate')
    ) not valid;

insert into schema_compatibility (migration, oldest_level, oldest_release) values (22, 21, '0.1.0');
