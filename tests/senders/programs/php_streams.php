<?php
// Pushes by PHP's streams: file_get_contents with a context. Each push has a connection of its own.
$input = json_decode(stream_get_contents(STDIN), true);
foreach ($input['pushes'] as $push) {
    usleep((int) ($push['pause_seconds'] * 1e6));
    $http = ['method' => 'POST', 'ignore_errors' => true];
    if ($push['fields'] !== null) {
        $http['header'] = "Content-Type: application/x-www-form-urlencoded\r\n";
        $http['content'] = http_build_query($push['fields']);
    }
    $ssl = $input['ca'] === '' ? [] : ['cafile' => $input['ca']];
    $http_response_header = [];
    $body = @file_get_contents($push['url'], false, stream_context_create(['http' => $http, 'ssl' => $ssl]));
    if ($body === false) {
        echo 'failed ', error_get_last()['message'], "\n";
        continue;
    }
    $id = '-';
    foreach ($http_response_header as $line) {
        if (stripos($line, 'X-Push-Id:') === 0) {
            $id = trim(substr($line, strlen('X-Push-Id:')));
        }
    }
    echo explode(' ', $http_response_header[0])[1], " $id\n";
}
