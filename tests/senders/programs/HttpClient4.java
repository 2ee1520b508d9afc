import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.http.Header;
import org.apache.http.NameValuePair;
import org.apache.http.client.entity.UrlEncodedFormEntity;
import org.apache.http.client.methods.CloseableHttpResponse;
import org.apache.http.client.methods.HttpPost;
import org.apache.http.impl.client.CloseableHttpClient;
import org.apache.http.impl.client.HttpClients;
import org.apache.http.message.BasicNameValuePair;
import org.apache.http.util.EntityUtils;

/** Pushes by Apache HttpClient 4. */
public final class HttpClient4 {
    public static void main(String[] args) throws Exception {
        Pushes.run(() -> {
            CloseableHttpClient client = HttpClients.custom().useSystemProperties().build();
            return (url, fields) -> push(client, url, fields);
        });
    }

    private static String push(CloseableHttpClient client, String url, Map<String, String> fields) throws Exception {
        HttpPost post = new HttpPost(url);
        if (fields != null) {
            List<NameValuePair> pairs = fields.entrySet().stream()
                    .map(field -> new BasicNameValuePair(field.getKey(), field.getValue()))
                    .collect(Collectors.toList());
            post.setEntity(new UrlEncodedFormEntity(pairs, StandardCharsets.UTF_8));
        }
        try (CloseableHttpResponse response = client.execute(post)) {
            EntityUtils.consume(response.getEntity());
            Header id = response.getFirstHeader("X-Push-Id");
            return Pushes.answer(response.getStatusLine().getStatusCode(), id == null ? null : id.getValue());
        }
    }
}
