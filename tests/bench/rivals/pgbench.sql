\set number random(1, 100000000000)
INSERT INTO pushes (mobile, taskid, status, receivetime, raw)
VALUES ('150' || :number, 'bench-' || :number, '1', '2019-07-23 17:00:00', 'mobile=15080921090&taskid=3313746&status=1&receivetime=2019-07-23+17%3A00%3A00')
ON CONFLICT DO NOTHING;
