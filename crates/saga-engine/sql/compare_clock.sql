select abs(extract(epoch from clock_timestamp() - $1)) < 0.5 as is_near
