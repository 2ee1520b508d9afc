<?php
// Pushes by PHP's curl, and so by libcurl as PHP programs use it.
$input = json_decode(stream_get_contents(STDIN), true);
$handle = curl_init();
foreach ($input['pushes'] as $push) {
    usleep((int) ($push['pause_seconds'] * 1e6));
    if (!$input['kept']) {
        $handle = curl_init();
    }
    curl_reset($handle);
    $id = '-';
    $options = [
        CURLOPT_URL => $push['url'],
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_HEADERFUNCTION => function ($handle, $line) use (&$id) {
            if (stripos($line, 'X-Push-Id:') === 0) {
                $id = trim(substr($line, strlen('X-Push-Id:')));
            }
            return strlen($line);
        },
    ];
    if ($push['fields'] === null) {
        $options[CURLOPT_CUSTOMREQUEST] = 'POST';  // CURLOPT_POST without fields would read standard input
    } else {
        $options[CURLOPT_POSTFIELDS] = http_build_query($push['fields']);
    }
    if ($input['ca'] !== '') {
        $options[CURLOPT_CAINFO] = $input['ca'];
    }
    curl_setopt_array($handle, $options);
    $done = curl_exec($handle);
    echo $done === false ? 'failed ' . curl_error($handle) : curl_getinfo($handle, CURLINFO_RESPONSE_CODE) . " $id", "\n";
}
