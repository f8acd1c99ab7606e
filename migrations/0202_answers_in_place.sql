-- A key is claimed by a short row, which grows to several times its size when the answer is saved. With as many claims on a page as it
-- has room for answers, the answer needs no entries in the indexes, and the table takes no more space than its answers.
alter table idempotency_keys set (fillfactor = 15);

insert into schema_compatibility (migration, oldest_level, oldest_release) values (202, 201, '0.1.0');
