insert into flights (id, at, sagas) values ($1, $2, $3)
